"""kdbridge registers: those of the machine, wherever they are read from."""

from __future__ import annotations

import re

from simulator.processors import SimulatedProcessor
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home

_SHORT = {
    "efl": "e_flags",
    "cs": "seg_cs",
    "ss": "seg_ss",
    "ds": "seg_ds",
    "es": "seg_es",
    "fs": "seg_fs",
    "gs": "seg_gs",
}
_SPECIAL = {"cr0", "cr2", "cr3", "cr4", "cr8", "gdtr", "idtr"}


def _printed(text: str) -> list[tuple[str, dict[str, int]]]:
    """For each processor its headline, and its registers by the name that is printed."""
    parts = re.split(r"^(processor .*)$", text, flags=re.MULTILINE)[1:]
    return [
        (headline, {name: int(value, 16) for name, value in re.findall(r"(\w+)=([0-9a-f]+)", body)})
        for headline, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def _truth(processor: SimulatedProcessor, name: str) -> int:
    special = {"gdtr": "gdtr_base", "idtr": "idtr_base"}.get(name, name)
    return processor.special_values[special] if name in _SPECIAL else processor.context_values[_SHORT.get(name, name)]


def test_target_dump_and_snapshot_give_those_of_the_machine(home: Home) -> None:
    answers = [call("registers", source, "--all") for source in (sim(), home.complete, home.small, home.snapshot)]
    assert [answer.code for answer in answers] == [0, 0, 0, 0]
    assert len({answer.out for answer in answers}) == 1
    printed = _printed(answers[0].out)
    assert [headline for headline, _ in printed] == ["processor 0 (stopped the machine)", "processor 1"]
    for (_, registers), processor in zip(printed, home.kernel.processors, strict=True):
        assert len(registers) == 31
        assert registers == {name: _truth(processor, name) for name in registers}
    assert list(answers[0].machine.target.machine.touched) == []


def test_one_processor_is_shown_unless_more_are_asked_for(home: Home) -> None:
    assert [headline for headline, _ in _printed(call("registers", home.small).out)] == [
        "processor 0 (stopped the machine)"
    ]
    for option in ("--processor", "-p"):
        assert [headline for headline, _ in _printed(call("registers", home.small, option, 1).out)] == ["processor 1"]


def test_the_module_of_the_program_counter_is_told(home: Home) -> None:
    kernel = home.kernel
    at = kernel.processors[1].context_values["rip"]
    (module,) = [m for m in kernel.modules if m.base <= at < m.base + m.size]
    name = module.path.rpartition("\\")[2]
    assert call("registers", home.small, "-p", 1).out.endswith(f"({name}+{at - module.base:#x})\n")


def test_json_holds_all_registers_and_nothing_else_is_on_stdout(home: Home) -> None:
    for source in (sim(), home.small, home.snapshot):
        document = call("registers", source, "--all", "--json").document
        assert [part["processor"] for part in document] == [0, 1]
        for part, processor in zip(document, home.kernel.processors, strict=True):
            context = {name: int(value, 16) for name, value in part["context"].items() if isinstance(value, str)}
            told = {name: value for name, value in processor.context_values.items() if name in context}
            assert len(told) > 20 and {name: context[name] for name in told} == told
            special = {name: int(value, 16) for name, value in part["special_registers"].items()}
            known = {name: value for name, value in processor.special_values.items() if name in special}
            assert len(known) > 5 and {name: special[name] for name in known} == known


def test_a_processor_that_is_not_there_is_a_mistake_in_the_command(home: Home) -> None:
    for number in (2, -1, 99999999999999999999):
        ended = call("registers", home.small, "--processor", number)
        assert (ended.code, ended.out) == (2, "")
        assert ended.last == f"kdbridge: there is no processor {number}; this machine has 2, from 0 on"
    ended = call("registers", home.small, "--processor", 1, "--all")
    assert (ended.code, ended.last) == (2, "kdbridge: --processor and --all exclude each other")
    ended = call("registers", home.small, "--processor", "one")
    assert ended.code == 2 and "'one' is not a valid integer" in ended.last


def test_a_processor_without_registers_is_told_and_the_exit_code_is_1(home: Home) -> None:
    # Cut off before KiProcessorBlock: what the header knows of the first processor is all there is.
    half = home.folder / "half registers.dmp"
    half.write_bytes(home.small.read_bytes()[:1_000_000])
    ended = call("registers", half, "--all")
    assert ended.code == 1
    first, last = ended.out.split("processor 1\n")
    headline, caution, *_ = first.splitlines()
    assert headline == "processor 0 (stopped the machine)"
    assert caution == "  as the file's header has them, which may be another's: memory has none"
    ((_, registers),) = _printed(first)
    stopped = home.kernel.processors[0]
    assert len(registers) > 20 and registers == {name: _truth(stopped, name) for name in registers}
    assert last == "  the target gives no registers of it\n"
    assert "the file was cut off" in ended.err
    known = [part["context"] for part in call("registers", half, "--all", "--json").document]
    assert int(known[0]["rip"], 16) == stopped.context_values["rip"] and known[1] is None
