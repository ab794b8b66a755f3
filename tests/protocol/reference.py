"""Tables of the protocol reference, as plain cells: numbers that nobody typed a second time."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["number", "tables"]


def tables(shared: Path, section: str) -> list[list[list[str]]]:
    """Every table of a section such as "6.3": its rows without the heading, each a list of cells."""
    text = (shared / "reference/kd-protocol.md").read_text(encoding="utf-8")
    found = re.search(rf"^### {re.escape(section)} .*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the reference has no section {section}"
    made: list[list[list[str]]] = []
    within = False
    for line in found[0].splitlines():
        if not line.startswith("|"):
            within = False
            continue
        if not within:
            made.append([])
            within = True
        made[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[2:] for rows in made]


def number(cell: str) -> int:
    """A hexadecimal cell, bold or not."""
    return int(cell.strip("*"), 16)
