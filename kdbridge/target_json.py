"""A Target as JSON and back: what a Snapshot keeps, and what `--json` prints. Schema 1.

Addresses and 64-bit words are hexadecimal strings; structures are their bytes, so that nothing is lost.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

from protocol.address import PageRun, PageRuns
from protocol.arch import AMD64, architecture_of
from protocol.dumpfile.index import HIGHEST_PAGE
from protocol.errors import KdError
from protocol.layouts.kdbg import KDDEBUGGER_DATA64
from protocol.structure import Structure, StructureLayout

from .errors import SnapshotError
from .target import Target

__all__ = ["SCHEMA", "target_from_json", "target_to_json"]

SCHEMA = 1
_T = TypeVar("_T")
_LAYOUTS: Mapping[str, StructureLayout] = {
    layout.name: layout for layout in (AMD64.context, AMD64.special_registers, KDDEBUGGER_DATA64)
}
_WORD = re.compile("0x[0-9a-f]{1,16}")
_HEX_FROM = 1 << 32
_PLAIN = frozenset({"machine_type", "number", "processor", "number_processors", "size", "nt_build_number"})


def target_to_json(target: Target) -> dict[str, object]:
    """Plain values that the json module can write."""
    architecture = architecture_of(target.version.machine_type)
    return {"schema": SCHEMA, "architecture": architecture.name if architecture else None, **_plain(target)}


def target_from_json(document: Mapping[str, object]) -> Target:
    """The inverse. Raises SnapshotError for what is not a Target of this schema."""
    if document.get("schema") != SCHEMA:
        raise SnapshotError(f"target.json has schema {document.get('schema')!r}; this version knows {SCHEMA}")
    return _dataclass(Target, dict(document), "target")


def _plain(value: object) -> Any:
    if isinstance(value, Structure):
        return {"structure": value.name, "bytes": value.raw.hex()}
    if isinstance(value, PageRuns):
        return [[hex(run.base_page), hex(run.page_count)] for run in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return hex(value)
    raise TypeError(f"{type(value).__name__} has no place in target.json")


def _value(kind: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(part for part in typing.get_args(kind) if part is not type(None)), value, where)
    maker = _MAKERS.get(kind)
    if maker is not None:
        return maker(value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list")
        parts = typing.get_args(kind)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return tuple(_value(parts[0], part, f"{where}[{at}]") for at, part in enumerate(value))
        if len(parts) != len(value):
            raise _wrong(where, f"{len(parts)} values")
        return tuple(
            _value(part, item, f"{where}[{at}]") for at, (part, item) in enumerate(zip(parts, value, strict=True))
        )
    if is_dataclass(kind):
        return _dataclass(cast("type[object]", kind), value, where)
    raise _wrong(where, "something this version knows")


def _dataclass(kind: type[_T], value: object, where: str) -> _T:
    if not isinstance(value, dict):
        raise _wrong(where, "an object")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    missing = names - set(value)
    if missing:
        raise _wrong(where, f"also {', '.join(sorted(missing))}")
    return kind(**{name: _value(hints[name], value[name], f"{where}.{name}") for name in names})


def _int(value: object, where: str) -> int:
    if isinstance(value, str) and _WORD.fullmatch(value):
        return int(value, 16)
    raise _wrong(where, "a hexadecimal number of at most 64 bits in a string")


def _str(value: object, where: str) -> str:
    # JSON can say half of a surrogate pair, which nobody can print.
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(where, "a string")
    return value


def _bool(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false")
    return value


def _runs(value: object, where: str) -> PageRuns:
    if not isinstance(value, list):
        raise _wrong(where, "a list")
    runs: list[PageRun] = []
    for at, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _wrong(f"{where}[{at}]", "two numbers")
        runs.append(PageRun(_int(pair[0], where), _int(pair[1], where)))
        if runs[-1].end_page > HIGHEST_PAGE:
            raise _wrong(f"{where}[{at}]", "a run of pages below 52 bits")
    return PageRuns(runs)


def _structure(value: object, where: str) -> Structure:
    if not isinstance(value, dict):
        raise _wrong(where, "a structure")
    layout = _LAYOUTS.get(_str(value.get("structure"), where))
    if layout is None:
        raise _wrong(where, "a structure that this version knows")
    try:
        return layout.decode(bytes.fromhex(_str(value.get("bytes"), where)), least=0)
    except (ValueError, KdError):
        raise _wrong(where, "the bytes of a structure") from None


_MAKERS: Mapping[Any, Callable[[object, str], object]] = {
    int: _int,
    str: _str,
    bool: _bool,
    PageRuns: _runs,
    Structure: _structure,
}


def _wrong(where: str, wanted: str) -> SnapshotError:
    return SnapshotError(f"target.json is damaged: {where} should be {wanted}")
