"""What LLVM's tools say of tests/data/symbols/rivers.pdb: read from the text that lies beside it."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "data/symbols"
PDB = FOLDER / "rivers.pdb"
IMAGE = FOLDER / "rivers.dll"

_SYMBOL = re.compile(r"\| (S_PUB32|S_LDATA32|S_[GL]PROC32) \[size = \d+\] `(.*)`\n.*addr = (\d{4}):(\d+)")
_MEMBER = re.compile(r"LF_MEMBER \[name = `(.*)`, Type = .*, offset = (\d+),")
_LIST = re.compile(r"(0x[0-9A-F]{4}) \| LF_FIELDLIST.*\n((?: {11}- .*\n)*)")
_STRUCTURE = re.compile(r"LF_(?:STRUCTURE|UNION) \[size = \d+\] `(.*)`\n(?: +vtable: .*, )? *field list: (0x[0-9A-F]+)")


def text() -> str:
    return (FOLDER / "rivers.pdbutil.txt").read_text(encoding="utf-8")


def sections() -> list[int]:
    """Addresses of the sections, in their order."""
    return [int(address, 16) for address in re.findall(r"([0-9A-F]+) virtual address", text())]


def symbols() -> dict[str, int]:
    """Every public symbol, procedure and static variable with its offset from the image's base."""
    starts = sections()
    found = _SYMBOL.findall(text())
    return {name: starts[int(section) - 1] + int(offset) for _, name, section, offset in found}


def kinds() -> dict[str, set[str]]:
    """Names by the kind of record that has them."""
    found: dict[str, set[str]] = {}
    for kind, name, _, _ in _SYMBOL.findall(text()):
        found.setdefault(kind, set()).add(name)
    return found


def structures() -> dict[str, dict[str, int]]:
    """Every structure and union that is defined: its members' offsets."""
    lists = {index: {name: int(at) for name, at in _MEMBER.findall(body)} for index, body in _LIST.findall(text())}
    return {name: lists[index] for name, index in _STRUCTURE.findall(text())}


def key() -> str:
    """GUID and age, as in a symbol store."""
    guid = re.search(r"GUID: \{(.*)\}", text())
    age = re.search(r"Age: (\d+)", text())
    assert guid and age
    return guid[1].replace("-", "") + f"{int(age[1]):X}"
