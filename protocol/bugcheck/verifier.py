"""What Driver Verifier catches: the subcases of bug checks 0xC4 and 0xC9 that are met most, out of several hundred."""

from __future__ import annotations

from .model import RESERVED, Subcase, case
from .model import ParameterKind as K

__all__ = ["IO_VIOLATIONS", "VIOLATIONS"]

_ALLOCATION = (K.IRQL("at the time"), K.VALUE("pool type"), K.SIZE("size"))
_RELEASE = (K.IRQL("at the time"), K.VALUE("pool type"), K.ADDRESS("block"))
_RULE = (K.ADDRESS("text of the rule"), K.ADDRESS("state of the rule"), K.ADDRESS("more state of the rule"))

VIOLATIONS: tuple[Subcase, ...] = (
    case(0x00, "It asked for 0 bytes of pool.", *_ALLOCATION),
    case(0x01, "It asked for paged pool above APC_LEVEL.", *_ALLOCATION),
    case(0x02, "It asked for nonpaged pool above DISPATCH_LEVEL.", *_ALLOCATION),
    case(0x10, "It freed an address that is none of pool.", K.ADDRESS("address")),
    case(0x11, "It freed paged pool above APC_LEVEL.", *_RELEASE),
    case(0x12, "It freed nonpaged pool above DISPATCH_LEVEL.", *_RELEASE),
    case(0x13, "It freed pool that is free already.", RESERVED, K.ADDRESS("pool header"), K.VALUE("its contents")),
    case(0x14, "It freed pool that is free already.", RESERVED, K.ADDRESS("pool header"), K.VALUE("its contents")),
    case(
        0x15, "It freed pool that holds a timer in use.", K.ADDRESS("timer"), K.VALUE("pool type"), K.ADDRESS("block")
    ),
    case(0x16, "It freed a bad address.", RESERVED, K.ADDRESS("address")),
    case(
        0x17, "It freed pool that holds a resource in use.", K.ADDRESS("resource"), K.ADDRESS("block"), K.SIZE("size")
    ),
    case(0x30, "It raised the IRQL to a lower one.", K.IRQL("at the time"), K.IRQL("asked for")),
    case(0x31, "It lowered the IRQL to a higher one.", K.IRQL("at the time"), K.IRQL("asked for")),
    case(
        0x32, "It released a spin lock at another level than DISPATCH_LEVEL.", K.IRQL("at the time"), K.ADDRESS("lock")
    ),
    case(0x33, "It acquired a fast mutex above APC_LEVEL.", K.IRQL("at the time"), K.ADDRESS("fast mutex")),
    case(0x34, "It released a fast mutex at another level than APC_LEVEL.", K.IRQL("at the time"), K.ADDRESS("mutex")),
    case(
        0x37,
        "It acquired a resource with APCs enabled.",
        K.IRQL("at the time"),
        K.VALUE("the thread's APC disable count"),
        K.ADDRESS("resource"),
    ),
    case(
        0x38,
        "It released a resource with APCs enabled.",
        K.IRQL("at the time"),
        K.VALUE("the thread's APC disable count"),
        K.ADDRESS("resource"),
    ),
    case(
        0x3B, "It waited at DISPATCH_LEVEL or above.", K.IRQL("at the time"), K.OBJECT("object"), K.ADDRESS("time-out")
    ),
    case(0x3C, "It referenced a handle that is not valid.", K.VALUE("handle"), K.OBJECT("object type")),
    case(0x40, "It acquired a spin lock below DISPATCH_LEVEL.", K.IRQL("at the time"), K.ADDRESS("spin lock")),
    case(
        0x60,
        "It was unloaded without freeing its pool.",
        K.SIZE("paged pool left"),
        K.SIZE("nonpaged pool left"),
        K.COUNT("allocations left"),
    ),
    case(
        0x61,
        "A thread of it asked for pool while it was being unloaded.",
        K.SIZE("paged pool left"),
        K.SIZE("nonpaged pool left"),
        K.COUNT("allocations left"),
    ),
    case(
        0x62,
        "It was unloaded without freeing its pool.",
        K.ADDRESS("name of the driver"),
        RESERVED,
        K.COUNT("allocations left"),
    ),
    case(0x6F, "It locked a page that is not in the state for it.", K.MDL("MDL"), K.PAGE_FRAME("page")),
    case(0x70, "It locked pages above DISPATCH_LEVEL.", K.IRQL("at the time"), K.MDL("MDL"), K.VALUE("access mode")),
    case(0x80, "It set an event above DISPATCH_LEVEL.", K.IRQL("at the time"), K.OBJECT("event")),
    case(0xC0, "It passed an IRP down with interrupts off.", K.DEVICE_OBJECT("device object"), K.IRP("IRP")),
    case(0xE0, "It called the kernel with an address of user mode.", K.ADDRESS("address"), K.SIZE("size")),
    case(
        0xF6,
        "It used a user mode handle as one of kernel mode.",
        K.VALUE("handle"),
        K.PROCESS("process"),
        K.CODE_ADDRESS("inside the driver"),
    ),
    case(0x1000, "Deadlock: it acquired a lock that the thread holds already.", K.ADDRESS("lock")),
    case(0x1001, "Deadlock: it acquired locks in an order that contradicts an earlier one.", K.ADDRESS("last lock")),
    case(0x1002, "It acquired a lock that was not initialised.", K.ADDRESS("lock")),
    case(0x1003, "It released a lock in the wrong order.", K.ADDRESS("lock"), K.ADDRESS("lock that was due")),
    case(0x1004, "It released a lock from another thread.", K.ADDRESS("lock"), K.THREAD("owner"), K.THREAD("thread")),
    case(0x1005, "It initialised a lock twice.", K.ADDRESS("lock")),
    case(0x1007, "It released a lock that is not held.", K.ADDRESS("lock"), K.THREAD("thread")),
    case(
        0x2000,
        "It asked for pool that can be executed.",
        K.CODE_ADDRESS("inside the driver"),
        K.VALUE("pool type"),
        K.POOL_TAG("pool tag, if given"),
    ),
    case(
        0x2001,
        "It asked for pages that can be executed.",
        K.CODE_ADDRESS("inside the driver"),
        K.FLAGS("page protection"),
    ),
    case(
        0x2002,
        "It mapped pages so that they can be executed.",
        K.CODE_ADDRESS("inside the driver"),
        K.FLAGS("page priority of the mapping"),
    ),
    case(0x2003, "A section of its image can be both written and executed.", K.UNICODE_STRING("file name")),
    case(0x2004, "A section of its image does not start on a page.", K.UNICODE_STRING("file name")),
    case(0x2005, "Its import table lies in a section that can be executed.", K.UNICODE_STRING("file name")),
    case(0x20002, "It broke a rule of calling the kernel (DDI compliance).", *_RULE, last=0x20022),
    case(0x91001, "It broke a rule of NDIS or Wi-Fi drivers.", *_RULE, last=0x92015),
)

IO_VIOLATIONS: tuple[Subcase, ...] = (
    case(0x01, "It freed as an IRP what is none.", K.IRP("what was freed")),
    case(0x02, "It freed an IRP that is still linked to a thread.", K.IRP("IRP")),
    case(0x03, "It passed down as an IRP what is none.", K.IRP("what was passed")),
    case(0x04, "It passed an IRP to a device object that is not valid.", K.DEVICE_OBJECT("device object")),
    case(
        0x05,
        "A dispatch routine returned at another IRQL.",
        K.DEVICE_OBJECT("device object"),
        K.IRQL("before"),
        K.IRQL("after"),
    ),
    case(0x06, "It completed an IRP with a status that it must not have.", K.NTSTATUS("status"), K.IRP("IRP")),
    case(0x07, "It completed an IRP that still has a cancel routine.", K.CODE_ADDRESS("cancel routine"), K.IRP("IRP")),
)
