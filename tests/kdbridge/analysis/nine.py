"""The table of nine bug checks in docs/analysis.md, as `analyze` makes it.

python -m tests.kdbridge.analysis.nine writes it there anew.
"""

from __future__ import annotations

import re

from tests.house.tree import ROOT

__all__ = ["NINE", "row", "told"]

NINE = ("0a", "d1", "1e", "3b", "50", "7e", "139", "9f", "ef")
"""Codes, as scenarios name them: bugcheck-0a …"""


def row(code: str) -> str:
    """The line of one of them, by a machine that crashed so."""
    from tests.kdbridge.cli.calling import call

    document = call("analyze", f"sim:bugcheck-{code}?memory=16M&processors=2", "--json").document
    check, suspect, crash = document["bug_check"], document["suspect"], document["crash"]
    instruction = crash["instructions"][0]
    cells = (
        f"{int(check['code'], 16):02X} {check['name']}",
        f"`sim:bugcheck-{code}`",
        re.sub(r",? at [0-9a-f`]{17}\b", "", crash["origin"]),
        f"`{crash['place']['module']}+{crash['place']['offset']}` `{instruction['text']}`",
        f"{suspect['module']}, {suspect['certainty']}, by: {suspect['rule']}",
        f"`{document['bucket']}`",
    )
    return f"| {' | '.join(cells)} |"


def told() -> list[str]:
    """The lines that the page has."""
    page = (ROOT / "docs/analysis.md").read_text(encoding="utf-8")
    part = page.partition("\n## Nine bug checks\n")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if "`sim:bugcheck-" in line]


def _write() -> None:
    page = ROOT / "docs/analysis.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("\n".join(told()), "\n".join(map(row, NINE))), encoding="utf-8")


if __name__ == "__main__":
    _write()
