"""DBGKD_MANIPULATE_STATE64: a question to a stopped target, and its answer (kd-protocol 3).

Both are 56 bytes (ApiNumber, processor, ReturnStatus, a union of 40 bytes) and data behind them. The answer echoes
the question's bytes, garbage included, with the output fields overwritten (T34). There are no request ids: an
answer is known by its ApiNumber and by what it echoes. Which fields a union has stands in `UNIONS`, once, for the
host that asks, the target that answers, and whoever decodes a recording.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import NamedTuple

from .errors import LocalProtocolError, RemoteProtocolError
from .ntstatus import STATUS_PENDING

__all__ = [
    "HEADER_SIZE",
    "LARGEST_TRANSFER",
    "NO_REPLY",
    "STATE_CHANGE_FOLLOWS",
    "UNIONS",
    "ApiNumber",
    "Manipulate",
    "UnionLayout",
    "api_name",
]

_HEADER = struct.Struct("<IHHI4s40s")
HEADER_SIZE = 56
assert _HEADER.size == HEADER_SIZE

LARGEST_TRANSFER = 3944
"""4000 - 56: more is silently cut by most targets; some answer 4,096 (T35)."""

_LEAST_DIVISIBLE = 256
_LEAST_FAILURE = 12
"""A stub's refusal may be this short: api, processor, status (T55)."""


class ApiNumber(enum.IntEnum):
    """DbgKd…Api (kd-protocol 3.2)."""

    READ_VIRTUAL_MEMORY = 0x3130
    WRITE_VIRTUAL_MEMORY = 0x3131
    GET_CONTEXT = 0x3132
    SET_CONTEXT = 0x3133
    WRITE_BREAK_POINT = 0x3134
    RESTORE_BREAK_POINT = 0x3135
    CONTINUE = 0x3136
    READ_CONTROL_SPACE = 0x3137
    WRITE_CONTROL_SPACE = 0x3138
    READ_IO_SPACE = 0x3139
    WRITE_IO_SPACE = 0x313A
    REBOOT = 0x313B
    CONTINUE2 = 0x313C
    READ_PHYSICAL_MEMORY = 0x313D
    WRITE_PHYSICAL_MEMORY = 0x313E
    QUERY_SPECIAL_CALLS = 0x313F
    SET_SPECIAL_CALL = 0x3140
    CLEAR_SPECIAL_CALLS = 0x3141
    SET_INTERNAL_BREAK_POINT = 0x3142
    GET_INTERNAL_BREAK_POINT = 0x3143
    READ_IO_SPACE_EXTENDED = 0x3144
    WRITE_IO_SPACE_EXTENDED = 0x3145
    GET_VERSION = 0x3146
    WRITE_BREAK_POINT_EX = 0x3147
    RESTORE_BREAK_POINT_EX = 0x3148
    CAUSE_BUG_CHECK = 0x3149
    SWITCH_PROCESSOR = 0x3150
    PAGE_IN = 0x3151
    READ_MACHINE_SPECIFIC_REGISTER = 0x3152
    WRITE_MACHINE_SPECIFIC_REGISTER = 0x3153
    OLD_VLM1 = 0x3154
    OLD_VLM2 = 0x3155
    SEARCH_MEMORY = 0x3156
    GET_BUS_DATA = 0x3157
    SET_BUS_DATA = 0x3158
    CHECK_LOW_MEMORY = 0x3159
    CLEAR_ALL_INTERNAL_BREAKPOINTS = 0x315A
    FILL_MEMORY = 0x315B
    QUERY_MEMORY = 0x315C
    SWITCH_PARTITION = 0x315D
    WRITE_CUSTOM_BREAKPOINT = 0x315E
    GET_CONTEXT_EX = 0x315F
    SET_CONTEXT_EX = 0x3160
    READ_PHYSICAL_BULK = 0x3162
    """Our name: nobody has documented it. Seen: what Microsoft's engine reads memory with for `.dump`, from a target on
    the network whose version is 4. It asks for up to 128 KiB, takes replies of ReadPhysicalMemory's form one behind
    the other until it has all, and acknowledges none of them."""


NO_REPLY = frozenset(
    {
        ApiNumber.CONTINUE,
        ApiNumber.CONTINUE2,
        ApiNumber.REBOOT,
        ApiNumber.CAUSE_BUG_CHECK,
        ApiNumber.SWITCH_PROCESSOR,
        ApiNumber.SET_SPECIAL_CALL,
        ApiNumber.CLEAR_SPECIAL_CALLS,
        ApiNumber.SET_INTERNAL_BREAK_POINT,
        ApiNumber.CLEAR_ALL_INTERNAL_BREAKPOINTS,
    }
)
"""Requests whose only answer is the acknowledge: never wait for more (T27)."""

STATE_CHANGE_FOLLOWS = frozenset({ApiNumber.SWITCH_PROCESSOR})
"""Of those, the ones after which the target reports its state anew."""


def api_name(api: int) -> str:
    """DbgKdReadVirtualMemoryApi is "ReadVirtualMemory"; a number nobody assigned is itself."""
    try:
        return "".join(part.capitalize() for part in ApiNumber(api).name.split("_"))
    except ValueError:
        return f"api {api:#x}"


_READS = frozenset({ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.READ_PHYSICAL_MEMORY})


class UnionLayout:
    """The fields at the start of a request's union; what lies behind them is garbage both ways."""

    __slots__ = ("_names", "_struct", "fields")

    def __init__(self, layout: str, *fields: str) -> None:
        self._struct = struct.Struct("<" + layout)
        assert self._struct.size <= 40, f"{fields} do not fit the union"
        self.fields = fields
        self._names = frozenset(fields)

    def decode(self, union: bytes) -> dict[str, int]:
        """Field values out of the 40 bytes."""
        return dict(zip(self.fields, self._struct.unpack_from(union), strict=True))

    def encode(self, values: Mapping[str, int], base: bytes = bytes(40)) -> bytes:
        """Lay all fields over `base`; fields that are not named keep what base has. LocalProtocolError for others."""
        if values.keys() == self._names:
            return self._struct.pack(*[values[field] for field in self.fields]) + base[self._struct.size :]
        merged = {**self.decode(base), **values}
        if len(merged) > len(self.fields):
            unknown = ", ".join(sorted(values.keys() - set(self.fields)))
            raise LocalProtocolError(f"no field {unknown} in this union: it has {', '.join(self.fields)}")
        return self._struct.pack(*(merged[field] for field in self.fields)) + base[self._struct.size :]


_MEMORY = UnionLayout("QII", "address", "transfer_count", "actual_bytes")
_BREAK_POINT_EX = UnionLayout("II", "count", "continue_status")
_IO = UnionLayout("QII", "io_address", "data_size", "data_value")
_IO_EXTENDED = UnionLayout(
    "IIIIQI", "data_size", "interface_type", "bus_number", "address_space", "io_address", "data_value"
)
_MSR = UnionLayout("III", "msr", "low", "high")
_BUS_DATA = UnionLayout("IIIII", "bus_data_type", "bus_number", "slot_number", "offset", "length")
_CONTEXT_EX = UnionLayout("III", "offset", "byte_count", "bytes_copied")
_NOTHING = UnionLayout("")

UNIONS: Mapping[int, UnionLayout] = {
    ApiNumber.READ_VIRTUAL_MEMORY: _MEMORY,
    ApiNumber.WRITE_VIRTUAL_MEMORY: _MEMORY,
    ApiNumber.READ_PHYSICAL_MEMORY: _MEMORY,
    ApiNumber.READ_PHYSICAL_BULK: _MEMORY,
    ApiNumber.WRITE_PHYSICAL_MEMORY: _MEMORY,
    ApiNumber.READ_CONTROL_SPACE: _MEMORY,
    ApiNumber.WRITE_CONTROL_SPACE: _MEMORY,
    ApiNumber.GET_CONTEXT: UnionLayout("I", "context_flags"),
    ApiNumber.SET_CONTEXT: UnionLayout("I", "context_flags"),
    ApiNumber.WRITE_BREAK_POINT: UnionLayout("QI", "address", "handle"),
    ApiNumber.RESTORE_BREAK_POINT: UnionLayout("I", "handle"),
    ApiNumber.WRITE_BREAK_POINT_EX: _BREAK_POINT_EX,
    ApiNumber.RESTORE_BREAK_POINT_EX: _BREAK_POINT_EX,
    ApiNumber.WRITE_CUSTOM_BREAKPOINT: UnionLayout("QQIBB", "address", "instruction", "handle", "size", "alignment"),
    ApiNumber.CONTINUE: UnionLayout("I", "continue_status"),
    # AMD64's form (2.8); 4-byte packed.
    ApiNumber.CONTINUE2: UnionLayout(
        "IIQQQ", "continue_status", "trace_flag", "dr7", "current_symbol_start", "current_symbol_end"
    ),
    ApiNumber.READ_IO_SPACE: _IO,
    ApiNumber.WRITE_IO_SPACE: _IO,
    ApiNumber.READ_IO_SPACE_EXTENDED: _IO_EXTENDED,
    ApiNumber.WRITE_IO_SPACE_EXTENDED: _IO_EXTENDED,
    ApiNumber.READ_MACHINE_SPECIFIC_REGISTER: _MSR,
    ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER: _MSR,
    ApiNumber.SEARCH_MEMORY: UnionLayout("QQI", "address", "search_length", "pattern_length"),
    ApiNumber.GET_BUS_DATA: _BUS_DATA,
    ApiNumber.SET_BUS_DATA: _BUS_DATA,
    ApiNumber.FILL_MEMORY: UnionLayout("QIHH", "address", "length", "flags", "pattern_length"),
    ApiNumber.QUERY_MEMORY: UnionLayout("QQII", "address", "reserved", "address_space", "flags"),
    ApiNumber.QUERY_SPECIAL_CALLS: UnionLayout("I", "count"),
    ApiNumber.SET_SPECIAL_CALL: UnionLayout("Q", "special_call"),
    ApiNumber.SET_INTERNAL_BREAK_POINT: UnionLayout("QI", "address", "flags"),
    ApiNumber.GET_INTERNAL_BREAK_POINT: UnionLayout(
        "QIIIIII", "address", "flags", "calls", "max_calls_per_period", "min_instructions", "max_instructions",
        "total_instructions",
    ),
    ApiNumber.SWITCH_PARTITION: UnionLayout("I", "partition"),
    ApiNumber.GET_CONTEXT_EX: _CONTEXT_EX,
    ApiNumber.SET_CONTEXT_EX: _CONTEXT_EX,
    ApiNumber.GET_VERSION: UnionLayout(
        "HHBBHHBBBBHQQQ", "major_version", "minor_version", "protocol_version", "kd_secondary_version", "version_flags",
        "machine_type", "max_packet_type", "max_state_change", "max_manipulate", "simulation", "unused", "kern_base",
        "ps_loaded_module_list", "debugger_data_list",
    ),
    ApiNumber.REBOOT: _NOTHING,
    ApiNumber.CAUSE_BUG_CHECK: _NOTHING,
    ApiNumber.SWITCH_PROCESSOR: _NOTHING,
    ApiNumber.PAGE_IN: _NOTHING,
    ApiNumber.CHECK_LOW_MEMORY: _NOTHING,
    ApiNumber.CLEAR_SPECIAL_CALLS: _NOTHING,
    ApiNumber.CLEAR_ALL_INTERNAL_BREAKPOINTS: _NOTHING,
    ApiNumber.OLD_VLM1: _NOTHING,
    ApiNumber.OLD_VLM2: _NOTHING,
}  # fmt: skip
"""Every request's union, in our names for Microsoft's fields."""


class Manipulate(NamedTuple):
    """One manipulate packet, request or reply, byte for byte. Two are made for each page that is read."""

    api: int
    processor_level: int = 0
    processor: int = 0
    status: int = 0
    padding: bytes = bytes(4)
    union: bytes = bytes(40)
    data: bytes = b""

    @property
    def name(self) -> str:
        """The API in words."""
        return api_name(self.api)

    def fields(self) -> dict[str, int]:
        """The union's fields; none for an API nobody documented."""
        layout = UNIONS.get(self.api)
        return layout.decode(self.union) if layout else {}

    @property
    def memory_wanted(self) -> int:
        """Bytes of memory that this request asks for; 0: it asks for something else."""
        return int.from_bytes(self.union[8:12], "little") if self.api in _READS else 0

    @property
    def divisible(self) -> bool:
        """It asks for so much memory that, where no answer comes whole, one to less of it may."""
        return self.memory_wanted >= _LEAST_DIVISIBLE

    def less(self, size: int) -> Manipulate:
        """The same read for so many bytes, or half of what it asks for if that is less."""
        count = min(size, self.memory_wanted // 2)
        return self._replace(union=self.union[:8] + count.to_bytes(4, "little") + self.union[12:])

    def encode(self) -> bytes:
        """The payload of the packet."""
        return (
            _HEADER.pack(self.api, self.processor_level, self.processor, self.status, self.padding, self.union)
            + self.data
        )

    @classmethod
    def decode(cls, payload: bytes) -> Manipulate:
        """Raises RemoteProtocolError when it is shorter than any target's (T55: a refusal may be 12 bytes)."""
        if len(payload) >= HEADER_SIZE:
            api, level, processor, status, padding, union = _HEADER.unpack_from(payload)
            return cls(api, level, processor, status, padding, union, payload[HEADER_SIZE:])
        if len(payload) >= _LEAST_FAILURE:
            api, level, processor, status, padding, union = _HEADER.unpack(payload.ljust(HEADER_SIZE, b"\0"))
            if status & 0x8000_0000:
                return cls(api, level, processor, status, padding, union)
        raise RemoteProtocolError(
            f"a manipulate packet of {len(payload)} bytes came; its header alone has {HEADER_SIZE}"
        )

    @classmethod
    def request(cls, api: ApiNumber, *, processor: int = 0, data: bytes = b"", **fields: int) -> Manipulate:
        """A request with these union fields. Its status is "pending", as WinDbg's: so no reply is the same bytes."""
        return cls(api, 0, processor, STATUS_PENDING, union=UNIONS[api].encode(fields), data=data)

    def reply(self, status: int, *, data: bytes = b"", **fields: int) -> Manipulate:
        """The answer to this request: everything echoed, the status and these output fields replaced (T34)."""
        layout = UNIONS.get(self.api)
        union = layout.encode(fields, self.union) if layout and fields else self.union
        return self._replace(status=status, union=union, data=data)
