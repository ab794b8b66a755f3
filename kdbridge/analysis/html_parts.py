"""Pieces of a page: text made harmless, tables, lists, sections. Whatever a target calls itself stays text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from kdbridge.words import harmless

__all__ = ["Cell", "definitions", "mono", "preformatted", "safe", "section", "table"]

Cell = tuple[str, str]
"""(class of the cell, its HTML)."""


def safe(text: object) -> str:
    """Text that is nothing but text: no mark of HTML, nothing that turns the direction of writing."""
    return html.escape(harmless(str(text)))


def mono(text: object) -> Cell:
    """A cell of an address, a number, a name as the machine has it."""
    return "mono", safe(text)


def preformatted(lines: Iterable[str]) -> str:
    """Lines as they are."""
    return "<pre>" + "\n".join(safe(line) for line in lines) + "</pre>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """What and its HTML, one below the other; pairs without a value are left out."""
    rows = "".join(f"<dt>{safe(what)}</dt><dd>{value}</dd>" for what, value in pairs if value)
    return f"<dl>{rows}</dl>" if rows else ""


def table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]], look: str = "plain") -> str:
    """A table that scrolls in itself. Each row has a class of its own, or none."""
    head = "".join(f'<th scope="col">{safe(text)}</th>' for text in heads)
    body = "".join(
        (f'<tr class="{look}">' if look else "<tr>")
        + "".join(f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>" for kind, text in cells)
        + "</tr>"
        for look, cells in rows
    )
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="{look}">{inner}</table></div>'


def section(title: str, body: str, *, opened: bool = False) -> str:
    """A part that can be folded away; nothing where there is nothing in it."""
    if not body:
        return ""
    return f"<details{' open' if opened else ''}><summary><h2>{safe(title)}</h2></summary>{body}</details>"
