"""The complete plan: what opens a dump first, then every page that Windows manages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.discovery import discover
from kdbridge.errors import TargetRefusedError
from kdbridge.plan import Stage, complete_plan
from protocol.address import PageRuns
from simulator.kernel import KernelOptions, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


@pytest.mark.parametrize("runs", [None, 60])
async def test_it_is_every_page_of_the_runs_and_no_other(runs: int | None) -> None:
    kernel = build_kernel(replace(_SMALL, runs=runs))
    source = SimulatedSource(kernel)
    parts = [part async for part in complete_plan(source, await discover(source))]
    assert PageRuns(run for part in parts for run in part.pages) == kernel.image.runs
    assert {part.known_total for part in parts} == {kernel.image.runs.page_count}
    assert [part.stage for part in parts if part.ends] == list(Stage)
    assert kernel.image.device_accesses == []


@pytest.mark.parametrize(("worse", "text"), [("runs", "gives no runs"), ("physical", "gives no physical reads")])
async def test_what_is_missing_is_said_with_another_way(worse: str, text: str) -> None:
    kernel = build_kernel(_SMALL)
    target = await discover(SimulatedSource(kernel))
    if worse == "runs":
        target = replace(target, runs=None)
    source = SimulatedSource(kernel, physical=worse != "physical")
    with pytest.raises(TargetRefusedError, match=text) as caught:
        [part async for part in complete_plan(source, target)]
    assert "--kind kernel" in str(caught.value)
