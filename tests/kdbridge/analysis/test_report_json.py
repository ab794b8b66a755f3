"""The document is what docs/analysis.md says that it is: every key, every type, none more and none less."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kdbridge.analysis.model import Analysis
from kdbridge.analysis.report_json import ANALYSIS_SCHEMA, analysis_document, process_documents
from tests.kdbridge.analysis.filled import EVIL, bare, filled
from tests.kdbridge.analysis.schema import SHAPES, differences


def _printed(analysis: Analysis) -> Any:
    return json.loads(json.dumps(analysis_document(analysis)))


@pytest.mark.parametrize("analysis", [filled(), bare()], ids=["filled", "bare"])
def test_the_document_is_as_documented(analysis: Analysis) -> None:
    document = _printed(analysis)
    assert document["schema"] == ANALYSIS_SCHEMA == "kdbridge-analysis/1"
    assert differences(document, "document", "document") == []


def test_every_shape_is_seen_in_one_that_is_filled() -> None:
    """Else the test above would prove nothing about it."""
    met: set[str] = set()

    def visit(value: Any, kind: str) -> None:
        kind = kind.removesuffix(" or null").strip("[]{}")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, list):
                visit(one, kind)
            elif isinstance(one, dict) and kind in SHAPES:
                met.add(kind)
                for name, inner in one.items():
                    visit(inner, SHAPES[kind][name])

    document = _printed(filled())
    for name, kind in SHAPES["document"].items():
        visit(document[name], kind)
    assert met | {"document"} == set(SHAPES)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda one: one.pop("bucket"), "document.bucket is not there"),
        (lambda one: one.update(extra=1), "document.extra is not documented"),
        (
            lambda one: one["stack"]["frames"][0].update(trust=1),
            "document.stack.frames[0].trust is 1, which is no text",
        ),
        (lambda one: one["crash"]["registers"].update(rax=23), "document.crash.registers.rax is 23, which is no hex"),
    ],
)
def test_the_check_bites(change: Any, complaint: str) -> None:
    document = _printed(filled())
    change(document)
    assert differences(document, "document", "document") == [complaint]


def test_values_are_those_of_the_analysis() -> None:
    document = _printed(filled())
    assert document["bug_check"]["code"] == "0xd1"
    assert document["suspect"]["place"]["text"] == "mydrv+0x1045"
    # 133546372130000000 in 100 ns since 1601 is 2024-03-11 13:26:53 UTC (date -d @1710163613).
    assert document["times"] == {"crash": "2024-03-11T13:26:53.000000Z", "boot": "2024-03-11T10:19:53.000000Z",
                                 "up_seconds": 11220.0}  # fmt: skip
    assert set(document["crash"]["registers"]) == {"rip", "rsp", "rax"}, "what a trap frame does not hold is left out"
    assert [frame["guessed"] for frame in document["stack"]["frames"]] == [False, False, False, True]
    assert document["modules"][2]["name"] == EVIL, "names are as the machine has them: JSON can say anything"
    assert document["coverage"]["held"] == [["0x1", "0x50"], ["0x200", "0x9"]]


def test_a_time_beyond_the_calendar_is_not_known() -> None:
    times = replace(filled().times, crash=(1 << 64) - 1)
    assert _printed(replace(filled(), times=times))["times"]["crash"] is None


def test_threads_are_shown_where_they_are_known() -> None:
    first, second = process_documents(filled().processes)
    assert second["threads"] == [] and second["name"] == EVIL
    threads: Any = first["threads"]
    assert [thread["thread_id"] for thread in threads] == [88]
