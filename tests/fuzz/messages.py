"""Decoders of single messages and structures: what they take they can write again, and it reads the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.address import PageRun, format_address, parse_address
from protocol.arch import AMD64
from protocol.debug_io import ControlRequest, GetString, GetStringReply, TraceIo, decode_debug_io
from protocol.errors import KdError
from protocol.file_io import FileIo
from protocol.layouts.kdbg import KDBG_TAG, KDDEBUGGER_DATA64, KdbgKey, decode_block, encode_block, parse_kdbg
from protocol.layouts.kernel import (
    KLDR_DATA_TABLE_ENTRY64,
    LIST_ENTRY64,
    UNLOADED_DRIVER64,
    encode_physical_memory_descriptor,
    parse_physical_memory_descriptor,
)
from protocol.layouts.version import GetVersion64
from protocol.manipulate import Manipulate
from protocol.state_change import Amd64ControlReport, CommandString, StateChange
from protocol.structure import StructureLayout
from tests.fuzz.driver import Target
from tests.fuzz.mutate import Field, hostile_number, mutated, noise
from tests.fuzz.packets import FIELDS, from_host, from_target
from tests.small_machine import version_of_19041

__all__ = ["MESSAGES"]


@dataclass(frozen=True)
class _Decoder:
    """One decoder, and good bytes for it."""

    decode: Callable[[bytes], object]
    good: tuple[bytes, ...]
    fields: tuple[Field, ...] = ()
    repair: Callable[[bytes], bytes] | None = None
    """Puts a sum right again, so that the lie behind it is looked at."""

    def make(self, rng: random.Random) -> bytes:
        if not rng.randrange(12):
            return noise(rng, 600)
        data = mutated(rng, rng.choice(self.good), self.fields, self.good)
        return self.repair(data) if self.repair is not None and rng.getrandbits(1) else data

    def run(self, data: bytes) -> None:
        self.decode(data)


def _payloads(packet_type: int) -> tuple[bytes, ...]:
    return tuple(data for kind, data in (*from_target(), *from_host()) if kind == packet_type)


def _state_change(data: bytes) -> None:
    change = StateChange.decode(data)
    Amd64ControlReport.decode(change.control_report).encode()
    again = StateChange.decode(change.encode())
    # A command that is longer than Windows' buffers is cut when it is written.
    assert again == change or isinstance(change.event, CommandString)


def _manipulate(data: bytes) -> None:
    message = Manipulate.decode(data)
    assert message.name
    fields = message.fields()
    assert Manipulate.decode(message.encode()) == message
    assert message.reply(0, data=b"", **fields).union == message.union


def _debug_io(data: bytes) -> None:
    refused = 0
    for decode in (decode_debug_io, GetStringReply.decode, TraceIo.decode, ControlRequest.decode):
        try:
            message = decode(data)
        except KdError:
            refused += 1
            if refused == 4:
                raise
            continue
        again = decode(message.encode())
        assert again == message
        if isinstance(message, GetString):
            assert len(message.answer(b"b" * 100).text) <= min(message.longest_answer, 100)


def _file_io(data: bytes) -> None:
    message = FileIo.decode(data)
    assert "\0" not in message.path
    assert FileIo.decode(message.decline(0xC000000F).encode()).status == 0xC000000F
    assert FileIo.decode(message.encode()) == message


def _version(data: bytes) -> None:
    version = GetVersion64.decode(data)
    assert (version.build, version.system_type) == (data[2] | data[3] << 8, data[1])
    assert GetVersion64.decode(version.encode()) == version


def _kdbg(data: bytes) -> None:
    block = parse_kdbg(data, 0xFFFFF804_12001B20)
    assert len(block.raw) <= block["size"]
    assert not block.has("pte_base") or len(block.raw) >= 0x368
    key = KdbgKey(block["flink"], block["blink"], block["kern_base"])
    words = len(data) // 8 * 8
    assert decode_block(encode_block(data, key), key) == data[:words]


def _descriptor(data: bytes) -> None:
    runs = parse_physical_memory_descriptor(data, 0x1000)
    assert runs.page_count == sum(run.page_count for run in runs) == int.from_bytes(data[8:16], "little")
    assert parse_physical_memory_descriptor(encode_physical_memory_descriptor(list(runs))) == runs


def _sum_of_runs(data: bytes) -> bytes:
    counts = [int.from_bytes(data[at : at + 8], "little") for at in range(24, 16 + 16 * data[0], 16)] if data else []
    return data[:8] + (sum(counts) & (1 << 64) - 1).to_bytes(8, "little") + data[16:]


def _structure(layout: StructureLayout, least: int) -> Callable[[bytes], None]:
    def decode(data: bytes) -> None:
        found = layout.decode(data, least=least)
        assert layout.encode(found.values, found.raw, len(found.raw)) == found.raw

    return decode


def _kernel_structures(data: bytes) -> None:
    refused: KdError | None = None
    for layout, least in (
        (KLDR_DATA_TABLE_ENTRY64, KLDR_DATA_TABLE_ENTRY64.size),
        (UNLOADED_DRIVER64, UNLOADED_DRIVER64.size),
        (LIST_ENTRY64, LIST_ENTRY64.size),
        (AMD64.context, AMD64.context.size),
        (AMD64.special_registers, AMD64.special_registers_least),
    ):
        try:
            _structure(layout, least)(data)
        except KdError as error:
            refused = error
    if refused is not None:
        raise refused


def _address(data: bytes) -> None:
    value = parse_address(data.decode("utf-8", "replace"))
    assert 0 <= value < 1 << 64
    assert parse_address(format_address(value)) == value


_BLOCK = KDDEBUGGER_DATA64.encode({"owner_tag": KDBG_TAG, "size": 0x3A8, "kern_base": 0xFFFFF804_12000000})
_RUNS = [PageRun(1, 0x9E), PageRun(0x100, 0xF00), PageRun(0x100000, 0x40000)]
_ADDRESSES = (
    b"fffff804`7c62a390",
    b"0x1000",
    b"0n4096",
    b"  ffff",
    b"0n18446744073709551616",
    b"\xef\xbc\x91\xef\xbc\x92",
)


def _target(name: str, share: int, decode: Callable[[bytes], object], good: Callable[[], tuple[bytes, ...]],
            fields: tuple[Field, ...] = (), repair: Callable[[bytes], bytes] | None = None) -> Target:  # fmt: skip
    def start(_folder: Path) -> _Decoder:
        return _Decoder(decode, good(), fields, repair)

    return Target(name, share, start)


def _addresses() -> tuple[bytes, ...]:
    rng = random.Random(1)
    return _ADDRESSES + tuple(format_address(hostile_number(rng, 8)).encode() for _ in range(20))


MESSAGES = (
    _target("state-change", 30, _state_change, lambda: _payloads(7), FIELDS[7]),
    _target("manipulate", 30, _manipulate, lambda: _payloads(2), FIELDS[2]),
    _target("debug-io", 30, _debug_io, lambda: (*_payloads(3), *_payloads(9), *_payloads(10)), FIELDS[3]),
    _target("file-io", 20, _file_io, lambda: _payloads(11), FIELDS[11]),
    _target("version", 20, _version, lambda: (version_of_19041().encode(),)),
    _target(
        "kdbg", 20, _kdbg, lambda: (_BLOCK, _BLOCK[:0x360], _BLOCK[:0x208]), ((0x10, 4), (0x14, 4), (0, 8), (0x18, 8))
    ),
    _target(
        "memory-descriptor", 30, _descriptor,
        lambda: tuple(encode_physical_memory_descriptor(_RUNS[:count]) for count in (1, 2, 3)),
        ((0, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8)), _sum_of_runs,
    ),
    _target("kernel-structures", 20, _kernel_structures, lambda: (bytes(range(256)) * 5, bytes(AMD64.context.size))),
    _target("address", 10, _address, _addresses),
)  # fmt: skip
