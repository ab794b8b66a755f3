"""An analysis filled by hand, every field of it, with names that a hostile machine might give; and a bare one."""

from __future__ import annotations

from dataclasses import replace

from kdbridge.analysis.model import (
    Analysis,
    BugCheckFact,
    Certainty,
    CrashContext,
    ExceptionFact,
    Frame,
    Held,
    ImageFact,
    Instruction,
    MemoryOperand,
    Missing,
    ParameterFact,
    Place,
    ProcessFact,
    Stack,
    Suspect,
    System,
    ThreadFact,
    Times,
    Trust,
)  # fmt: skip
from kdbridge.target import Finding, Module, Target, UnloadedModule
from protocol.address import PageRun, PageRuns
from protocol.arch import AMD64
from protocol.layouts.version import GetVersion64

__all__ = ["EVIL", "bare", "filled"]

EVIL = "</pre><script>alert(1)</script>'\"&\x1b]0;\x07\u202e<img src=http://evil.example/x>"
"""What a driver may call itself."""

KERNEL, DRIVER, HOSTILE = 0xFFFFF80213800000, 0xFFFFF80214998000, 0xFFFFF80214A00000
_STACK = 0xFFFFBB8019E22F88


def _module(name: str, base: int) -> Module:
    return Module(name, rf"\SystemRoot\System32\{name}", base, 0x16000, base + 0x1000, 0x4A91EA3F, 0x1234, base + 0x500)


def _target() -> Target:
    version = GetVersion64(0xF, 19041, 6, 2, 0, 0x8664, 0, 0, 0, 0, KERNEL, KERNEL + 0x5000, KERNEL + 0x6000)
    return Target(
        version=version, stop=None, kdbg=None, processors=(), directory_table_base=0x1AA000, runs=None,
        bug_check_code=0xD1, bug_check_parameters=(0xFFFFA70F00266C10, 2, 0, DRIVER + 0x1045),
        modules=(_module("ntoskrnl.exe", KERNEL), _module("mydrv.sys", DRIVER), _module(EVIL, HOSTILE)),
        unloaded_modules=(UnloadedModule("dump_storport.sys", 0xFFFFF802188D5000, 0xFFFFF802188DC000, 0),
                          UnloadedModule(EVIL, 0xFFFFF802188E0000, 0xFFFFF802188E1000, 0)),
        shared_data=None, build_lab="19041.1.amd64fre.vb_release.191206-1406", break_status=4,
        findings=(Finding("shared data", False, "KUSER_SHARED_DATA cannot be read: no times, no product type"),),
    )  # fmt: skip


def _frames() -> tuple[Frame, ...]:
    deep = Place(DRIVER + 0x1045, "mydrv", 0x1045, "ReadPort", 0x45, "pdb")
    return (
        Frame(KERNEL + 0x1080, _STACK, KERNEL + 0x2210, Place(KERNEL + 0x1080, "nt", 0x1080, "KeBugCheckEx", 0,
              "export"), Trust.REGISTERS),
        Frame(KERNEL + 0x2210, _STACK + 0x40, DRIVER + 0x1045, Place(KERNEL + 0x2210, "nt", 0x2210), Trust.UNWOUND,
              "trap frame at ffffbb80`19e23010"),
        Frame(DRIVER + 0x1045, _STACK + 0x180, DRIVER + 0x1200, deep, Trust.MACHINE_FRAME, "on another stack, " * 6),
        Frame(HOSTILE + 0x30, _STACK + 0x200, 0, Place(HOSTILE + 0x30, EVIL, 0x30, EVIL, 2, "pdb"), Trust.SCANNED),
    )  # fmt: skip


def filled() -> Analysis:
    """Every field has a value."""
    target = _target()
    context = AMD64.context.decode(AMD64.context.encode({"rip": DRIVER + 0x1045, "rsp": _STACK + 0x180, "rax": 0x17}))
    stack = Stack(_frames(), f"its next frame lies in {EVIL}", whole=False, processor=0, thread=0xFFFFA70F00200080)
    place = Place(DRIVER + 0x1045, "mydrv", 0x1045)
    touched = MemoryOperand("[rax+0x10]", 0xFFFFA70F00266C10, "read", 8, None, place)
    there = MemoryOperand("[rcx]", 0xFFFFA70F00266000, "write", 4, b"\1\2\3\4")
    images = tuple(
        ImageFact(module, "10.0.19041.1", company, company, "x.pdb", "A" * 32, 1, ours, f"its version: {company}")
        for module, company, ours in zip(
            target.modules, ("Microsoft Corporation", "My <b>Company</b>", EVIL), (True, False, None), strict=True
        )
    )
    thread = ThreadFact(0xFFFFA70F00200080, 4, 88, "running", 0, stack)
    return Analysis(
        source="server.dmp",
        target=target,
        system=System("Windows 10.0 build 19041 free x64", target.build_lab, "workstation", r"C:\Windows", 4,
                      "GenuineIntel", 2400, 16 << 20, (("manufacturer", EVIL), ("product", "A machine"))),
        times=Times(133546372130000000, 133546259930000000, 112200000000),
        bug_check=BugCheckFact(0xD1, "DRIVER_IRQL_NOT_LESS_OR_EQUAL", "A driver touched invalid memory.", (
            ParameterFact(1, 0xFFFFA70F00266C10, "ffffa70f`00266c10  memory that was touched", "address", None,
                          "not mapped"),
            ParameterFact(2, 2, "2 (DISPATCH_LEVEL)  at the time", "IRQL"),
            ParameterFact(3, 0, "0x0 (read)  what was tried", "access"),
            ParameterFact(4, DRIVER + 0x1045, "fffff802`14999045  instruction that did it", "code address", place),
        )),
        crash=CrashContext("trap frame at ffffbb80`19e23010", True, 0, context, frozenset({"rip", "rsp", "rax"}), place,
                           (Instruction(DRIVER + 0x1045, bytes.fromhex("488b4010"), "mov rax, qword ptr [rax+0x10]",
                                        (touched, there)),
                            Instruction(DRIVER + 0x1049, b"\xc3", "ret")),
                           ExceptionFact(0xC0000005, "STATUS_ACCESS_VIOLATION: it read what it must not", place,
                                         (0, 0xFFFFA70F00266C10)),
                           ("CONTEXT that parameter 3 points to: cannot be read",)),
        stopped=0,
        stack=stack,
        stacks=(stack, replace(stack, frames=stack.frames[:1], ended="", whole=True, processor=1, thread=None)),
        suspect=Suspect("mydrv", place, "faulting instruction", "parameter 4 lies in mydrv+0x1045", Certainty.CERTAIN),
        bucket="D1_mydrv+1045",
        images=images,
        unloaded=target.unloaded_modules,
        processes=(ProcessFact(0xFFFFA70F00100080, 4, 0, "System", 0x1AA000, (0,), (thread,)),
                   ProcessFact(0xFFFFA70F00300080, 620, None, EVIL, 0x73A000)),
        current=thread,
        console=f"mydrv: going to read\r\n{EVIL}\n",
        print_buffer="".join(f"line {number}\n" for number in range(60)),
        held=Held(PageRuns([PageRun(1, 0x9E), PageRun(0x100, 0xF00)]), PageRuns([PageRun(1, 0x50), PageRun(0x200, 9)]),
                  PageRuns([PageRun(0x60, 2)]), PageRuns([PageRun(0x200, 4)])),
        missing=(Missing("versions of images", f"their pages are not there: {EVIL}", ((KERNEL, 0x1000),)),),
        bytes_read=51200,
        pieces=(("code at the crash", DRIVER + 0x1040, bytes(range(40))), (EVIL, _STACK, b"<script>\0")),
    )  # fmt: skip


def bare() -> Analysis:
    """Nothing is known."""
    return replace(
        filled(), target=replace(_target(), bug_check_code=None, modules=(), unloaded_modules=(), findings=()),
        system=System("Windows build 19041", "", "", "", 1, "", None, None), times=Times(None, None, None),
        bug_check=None, crash=None, stack=None, stacks=(), suspect=None, bucket="", images=(), unloaded=(),
        processes=(), current=None, console="", print_buffer=None, held=None, missing=(), pieces=(), bytes_read=0,
    )  # fmt: skip
