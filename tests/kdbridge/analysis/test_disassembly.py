"""Instructions at the crash; what cannot be one, or cannot be read, is said so. Encodings are of Intel's manual."""

from __future__ import annotations

from kdbridge.analysis.disassembly import Disassembler
from kdbridge.analysis.model import Instruction, MemoryOperand
from kdbridge.analysis.names import Names
from kdbridge.analysis.registers import Registers, known_of
from protocol.arch import AMD64
from tests.kdbridge.analysis.made_up import KERNEL, MadeUp, module

_CODE = KERNEL + 0x100000
_DATA = 0xFFFFA700_00001000
_CONTEXT = AMD64.context.decode(AMD64.context.encode({"context_flags": 0x10001F, "rip": _CODE, "rax": _DATA}))
_REGISTERS = Registers(_CONTEXT, known_of(AMD64, _CONTEXT))
_NAMES = Names([module("ntoskrnl.exe", KERNEL), module("mydrv.sys", _CODE)], (), KERNEL)
_NOPS = b"\x90" * 0x40


def _reader(blocks: dict[int, bytes]) -> Disassembler:
    return Disassembler(MadeUp(blocks), _NAMES, AMD64)


async def test_the_first_instruction_comes_with_what_it_touches() -> None:
    code = bytes.fromhex("8b4810 894808 488b0d00010000") + _NOPS
    blocks = {_CODE: code, _DATA: bytes(range(0x40)), _CODE + 0x10D: b"\x11" * 8}
    found, missing = await _reader(blocks).at(_CODE, _REGISTERS, count=3)
    assert missing == ()
    first = MemoryOperand("[rax + 0x10]", _DATA + 0x10, "read", 4, bytes([0x10, 0x11, 0x12, 0x13]))
    assert found[0] == Instruction(_CODE, code[:3], "mov ecx, dword ptr [rax + 0x10]", (first,))
    # What rax is by then, nobody knows; what lies beside the code stays where it is.
    assert found[1] == Instruction(_CODE + 3, code[3:6], "mov dword ptr [rax + 8], ecx")
    (beside,) = found[2].operands
    assert (beside.address, beside.content) == (_CODE + 0x10D, b"\x11" * 8)
    assert beside.place is not None and str(beside.place) == "mydrv+0x10d"


async def test_memory_that_cannot_be_read_has_no_content() -> None:
    found, _ = await _reader({_CODE: bytes.fromhex("8b4810") + _NOPS}).at(_CODE, _REGISTERS)
    assert (found[0].operands[0].content, found[0].operands[0].place) == (None, None)


async def test_a_register_that_is_not_known_is_missing() -> None:
    registers = Registers(_CONTEXT, _REGISTERS.known - {"rax"})
    found, missing = await _reader({_CODE: bytes.fromhex("8b4810") + _NOPS}).at(_CODE, registers)
    assert found[0].operands == ()
    assert [(one.what, one.why) for one in missing] == [("where [rax + 0x10] lies", "rax is not known there")]


async def test_bytes_that_are_no_instruction_are_called_so() -> None:
    found, missing = await _reader({_CODE: b"\x90\x06\x06\x06\x06" + bytes(0x40)}).at(_CODE)
    assert [one.text for one in found] == ["nop", "no instruction: 06 06 06 06"]
    assert (found[1].address, found[1].data, missing) == (_CODE + 1, b"\x06" * 4, ())


async def test_code_that_ends_with_its_page_is_read_up_to_there() -> None:
    at = _CODE + 0x1000 - 4
    found, missing = await _reader({_CODE: b"\x90" * 0x1000}).at(at)
    assert [one.address for one in found] == [at, at + 1, at + 2, at + 3] and missing == ()


async def test_an_instruction_that_is_cut_off_is_missing() -> None:
    at = _CODE + 0x1000 - 2
    code = b"\x90" * 0xFFE + b"\x8b\x48"
    found, missing = await _reader({_CODE: code}).at(at)
    assert found == ()
    assert [(one.what, one.ranges) for one in missing] == [("the instruction", ((_CODE + 0x1000, 1),))]


async def test_there_is_no_code() -> None:
    for address in (0, 0x4141, _CODE):
        found, missing = await _reader({}).at(address)
        assert found == () and missing[0].ranges == ((address, 1),)
