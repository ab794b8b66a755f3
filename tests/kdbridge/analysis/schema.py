"""The schema of an analysis as docs/analysis.md has it, and where a document is not of it."""

from __future__ import annotations

import re
from typing import Any

from tests.house.tree import ROOT

__all__ = ["SHAPES", "differences"]

_HEX = re.compile("0x(0|[1-9a-f][0-9a-f]{0,15})")


def _documented() -> dict[str, dict[str, str]]:
    """Shapes by name: the type of each key."""
    text = (ROOT / "docs/analysis.md").read_text(encoding="utf-8").partition("\n## JSON\n")[2].partition("\n## ")[0]
    shapes: dict[str, dict[str, str]] = {}
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name = part.partition("\n")[0]
        shapes[name] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", part, re.MULTILINE))
    return shapes


SHAPES = _documented()


def differences(value: Any, kind: str, where: str) -> list[str]:
    """Where a value is not of the type that is documented."""
    if kind.endswith(" or null"):
        return [] if value is None else differences(value, kind.removesuffix(" or null"), where)
    if kind.startswith("["):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [text for at, one in enumerate(value) for text in differences(one, kind[1:-1], f"{where}[{at}]")]
    if kind.startswith("{"):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        return [text for name, one in value.items() for text in differences(one, kind[1:-1], f"{where}.{name}")]
    if kind in SHAPES:
        if not isinstance(value, dict):
            return [f"{where} is no {kind}"]
        found = [f"{where}.{name} is not documented" for name in value.keys() - SHAPES[kind].keys()]
        found += [f"{where}.{name} is not there" for name in SHAPES[kind].keys() - value.keys()]
        both = SHAPES[kind].keys() & value.keys()
        return found + [
            text for name in both for text in differences(value[name], SHAPES[kind][name], f"{where}.{name}")
        ]
    good = {
        "text": isinstance(value, str),
        "hex": isinstance(value, str) and _HEX.fullmatch(value) is not None,
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
    }[kind]
    return [] if good else [f"{where} is {value!r}, which is no {kind}"]
