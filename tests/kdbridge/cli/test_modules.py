"""kdbridge modules: those of the machine, wherever they are read from."""

from __future__ import annotations

from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.watched import watched


def test_those_of_the_machine_in_load_order(home: Home) -> None:
    kernel = home.kernel
    answers = [call("modules", source, "--json").document for source in (sim(), home.complete, home.snapshot)]
    assert answers[0]["modules"] == answers[1]["modules"] == answers[2]["modules"]
    modules = answers[0]["modules"]
    assert [int(one["base"], 16) for one in modules] == [one.base for one in kernel.modules]
    assert [int(one["size"], 16) for one in modules] == [one.size for one in kernel.modules]
    assert [one["path"] for one in modules] == [one.path for one in kernel.modules]
    gone = answers[0]["unloaded_modules"]
    told = {(one["name"], int(one["start"], 16), int(one["end"], 16)) for one in gone}
    assert told == {(one.name, one.start, one.end) for one in kernel.unloaded_modules}
    text = call("modules", home.complete).out
    assert text.startswith(f"modules ({len(kernel.modules)})\n")
    assert f"unloaded modules ({len(kernel.unloaded_modules)})\n" in text


def test_a_target_is_read_once_and_left_alone() -> None:
    with watched() as reads:
        ended = call("modules", sim())
    assert reads.bytes and reads.twice == [] and list(ended.machine.target.machine.touched) == []


def test_names_from_a_target_cannot_steer_the_terminal(home: Home) -> None:
    data = home.complete.read_bytes()
    name = "mydrv.sys".encode("utf-16-le")
    assert name in data
    evil = home.folder / "evil modules.dmp"
    evil.write_bytes(data.replace(name, "\x1b]0;\x07\nsys".encode("utf-16-le")))
    for verb in ("modules", "analyze", "stack"):
        ended = call(verb, evil)
        assert ended.code in (0, 1) and "\x1b" not in ended.out and "\x07" not in ended.out
