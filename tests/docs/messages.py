"""What the program can say, out of its sources: every text with … for each part that is filled in."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.tree import PACKAGES, ROOT, parsed

__all__ = ["Raised", "raised", "texts"]

_HOLE = "…"


@dataclass(frozen=True)
class Raised:
    """A text that an error is raised with."""

    place: str
    error: str
    text: str


def _text(node: ast.expr) -> str | None:
    """The text of an expression, … where a value is put in; None where it is no text."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or _HOLE for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = _text(left), _text(right)
            return None if sides == (None, None) else "".join(side or _HOLE for side in sides)
        case _:
            return None


@functools.cache
def _sources() -> tuple[str, ...]:
    """Every source file, under version control already or not."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in files))


@functools.cache
def texts() -> frozenset[str]:
    """Every text in the three packages."""
    found = (_text(node) for name in _sources() for node in ast.walk(parsed(name)) if isinstance(node, ast.expr))
    return frozenset(text for text in found if text)


def raised(package: str) -> Iterator[Raised]:
    """Every error that this package makes with a text of its own."""
    for name in _sources():
        if not name.startswith(f"{package}/"):
            continue
        for node in ast.walk(parsed(name)):
            match node:
                case ast.Call(func=ast.Name(id=error), args=[first, *_]) if error.endswith(("Error", "Fault")):
                    text = _text(first)
                    if text is not None:
                        yield Raised(f"{name}:{node.lineno}", error, text)
