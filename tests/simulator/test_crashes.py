"""The crashes by their bug check: what the parameters point to is what Microsoft says that it is."""

from __future__ import annotations

import struct

import pytest

from protocol.arch import AMD64
from simulator.crashes import CRASHES
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.options import BugCheck
from simulator.scenarios import SCENARIOS


def _crashed(code: int) -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=32 << 20, processors=1, bug_check=BugCheck(code)))


def _read(kernel: SimulatedKernel, address: int, size: int) -> bytes:
    data = kernel.read_virtual(address, size)
    assert data is not None
    return data


def _number(kernel: SimulatedKernel, address: int, size: int = 8) -> int:
    return int.from_bytes(_read(kernel, address, size), "little")


def test_each_has_its_scenario() -> None:
    assert {name for name in SCENARIOS if SCENARIOS[name].kernel.many_prints} == {
        f"bugcheck-{code:02x}" for code in CRASHES
    }


@pytest.mark.parametrize("code", [0x0A, 0xD1, 0x50])
def test_a_page_fault_is_at_the_address_that_the_instruction_computes(code: int) -> None:
    kernel = _crashed(code)
    _, address, _, third, fourth = kernel.bug_check
    assert (third if code == 0x50 else fourth) == kernel.crash_site
    assert kernel.processors[0].special_values["cr2"] == address
    assert _read(kernel, kernel.crash_site, 3) == bytes.fromhex("8b4110")  # mov eax,[rcx+10h]
    frames = [frame for frame in kernel.processors[0].frames if frame.function == "nt!KiPageFault"]
    assert _number(kernel, frames[0].stack_pointer + 0x38) + 0x10 == address  # KTRAP_FRAME.Rcx
    assert _number(kernel, frames[0].stack_pointer + 0x168) == kernel.crash_site


@pytest.mark.parametrize(("code", "context"), [(0x3B, 3), (0x7E, 4)])
def test_an_exception_has_its_context(code: int, context: int) -> None:
    kernel = _crashed(code)
    assert (kernel.bug_check[1], kernel.bug_check[2]) == (0xC0000005, kernel.crash_site)
    registers = AMD64.context.decode(_read(kernel, kernel.bug_check[context], AMD64.context.size))
    frame = next(one for one in kernel.processors[0].frames if one.function == "mydrv!ReadBuffer")
    assert (registers["rip"], registers["rsp"]) == (kernel.crash_site, frame.stack_pointer)
    if code == 0x7E:
        record = struct.unpack("<IIQQI4xQQ", _read(kernel, kernel.bug_check[3], 0x30))
        assert record == (0xC0000005, 0, 0, kernel.crash_site, 2, 0, registers["rcx"] + 0x10)


def test_a_fast_fail_has_its_trap_frame_and_record() -> None:
    kernel = _crashed(0x139)
    _, reason, frame, record, _ = kernel.bug_check
    assert reason == _number(kernel, frame + 0x38) == 3
    assert _number(kernel, frame + 0x168) == kernel.crash_site
    assert _read(kernel, kernel.crash_site, 2) == b"\xcd\x29"
    assert struct.unpack("<IIQQI4xQ", _read(kernel, record, 0x28)) == (0xC0000409, 1, 0, kernel.crash_site, 1, 3)


def test_a_stuck_power_irp_leads_to_its_driver() -> None:
    kernel = _crashed(0x9F)
    _, kind, device, triage, irp = kernel.bug_check
    assert (kind, _number(kernel, triage, 2), _number(kernel, device, 2), _number(kernel, irp, 2)) == (3, 0x8000, 3, 6)
    modules = {one.name: one for one in kernel.modules}
    location = _number(kernel, irp + 0xB8)
    assert _number(kernel, location, 1) == 0x16
    for at, name in ((device, "ACPI"), (_number(kernel, location + 0x28), "mydrv")):
        driver = _number(kernel, at + 8)
        assert _number(kernel, driver + 0x18) == modules[name].base
        text = _read(kernel, _number(kernel, driver + 0x40), _number(kernel, driver + 0x38, 2))
        assert text.decode("utf-16-le") == f"\\Driver\\{name}"


def test_the_process_that_died_is_critical() -> None:
    kernel = _crashed(0xEF)
    died = next(one for one in kernel.processes if one.address == kernel.bug_check[1])
    assert (died.name, kernel.bug_check[2]) == ("csrss.exe", 0)


@pytest.mark.parametrize("many", [False, True])
def test_the_print_buffer_ends_where_the_next_byte_goes(many: bool) -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20, processors=1, many_prints=many))
    symbols = kernel.symbols
    start, size = _number(kernel, symbols["KdPrintCircularBuffer"]), _number(kernel, symbols["KdPrintBufferSize"], 4)
    end = _number(kernel, symbols["KdPrintWritePointer"]) - start
    data = _read(kernel, start, size)
    assert (_number(kernel, symbols["KdPrintRolloverCount"], 4) > 0) is many
    text = (data[end:] + data[:end] if many else data[:end]).decode("ascii")
    assert text.endswith("*** Fatal System Error: 0x000000d1\n")
    assert ("request 159 was put" in text) is many and ("queue is up" in text) is not many
