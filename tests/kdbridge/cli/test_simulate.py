"""kdbridge simulate: a machine at the other end of a line, made up or out of a file."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from protocol.address import PAGE_SIZE
from simulator.scenarios import SCENARIOS
from tests.kdbridge.cli.calling import call, served
from tests.kdbridge.cli.conftest import Home


def test_the_url_is_the_first_line_and_ctrl_c_ends_it() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with served("breakpoint", "--memory", "16M", "--on", "pty:") as machine:
            assert machine.url.startswith("serial:/dev/")
            machine.process.send_signal(number)
            out, err = machine.process.communicate(timeout=30)
            assert (machine.process.returncode, out) == (0, "")
            assert err == "an int3 in a driver; Ctrl-C ends it\n"


def test_a_link_to_a_pty_is_there_as_long_as_the_machine(tmp_path: Path) -> None:
    link = tmp_path / "com1"
    with served("bugcheck", "--memory", "16M", "--on", f"pty:{link}") as machine:
        assert machine.url == f"serial:{link}" and link.is_symlink()
        assert call("info", machine.url, real_clock=True).code == 0
    assert not link.is_symlink()


@pytest.mark.slow
def test_a_dump_is_put_back_on_a_line(home: Home, tmp_path: Path) -> None:
    place = tmp_path / "line"
    with served(home.complete, "--on", f"unix:{place}") as machine:
        assert machine.url == f"unix:{place}"
        ended = call("info", machine.url, real_clock=True)
        assert ended.code == 0
        assert ended.out == call("info", home.complete).out
        out = tmp_path / "again.dmp"
        assert call("dump", machine.url, out, "--kind", "kernel", real_clock=True).code == 0
    assert call("verify", out, "--against", home.small).code == 0


def test_a_raw_image_is_memory_and_nothing_more(home: Home, tmp_path: Path) -> None:
    raw = tmp_path / "memory.raw"
    image = home.kernel.image
    raw.write_bytes(b"".join(image.read_page(pfn) or bytes(PAGE_SIZE) for pfn in range(0x400)))
    root = home.kernel.directory_table_base
    with served(raw, "--on", "tcp:127.0.0.1:0", "--once") as machine:
        ended = call("memory", machine.url, f"{root:x}", "1000", "--physical", "--json", real_clock=True)
        assert ended.code == 0
        assert bytes.fromhex(ended.document["bytes"]) == image.read(root, 0x1000)
        assert machine.process.wait(30) == 0, "--once: its debugger has hung up"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--on", "nowhere:"), 2, "kdbridge: 'nowhere:': a target can be put on pty:, tcp:HOST:PORT or unix:PATH"),
        (("--on", "tcp:h:x"), 2, "kdbridge: 'tcp:h:x': write tcp:HOST:PORT, such as tcp:127.0.0.1:5003"),
        (("--on", "tcp:h:99999"), 2, "kdbridge: 'tcp:h:99999': write tcp:HOST:PORT, such as tcp:127.0.0.1:5003"),
        (("--on", "unix:"), 2, "kdbridge: 'unix:': a target can be put on pty:, tcp:HOST:PORT or unix:PATH"),
        (("--on", "unix:/nowhere/x"), 3, "kdbridge: cannot serve on unix:/nowhere/x: No such file or directory"),
        ((), 2, "Error: Missing option '--on'."),
        (("--on", "pty:", "--memory", "16Q"), 2, "kdbridge: '16Q' is not a size; write 4096, 64K, 256M or 1G"),
        (("--on", "pty:", "--memory", "1M"), 2, "kdbridge: 0x100000 bytes of memory: at least 16 MiB are needed"),
        (("--on", "pty:", "--processors", "257"), 2,
         "Error: Invalid value for '--processors': 257 is not in the range 1<=x<=256."),
        (("--on", "pty:", "--baud", "0"), 2, "Error: Invalid value for '--baud': 0 is not in the range x>=50."),
        (("/dev/null", "--on", "pty:", "--memory", "16M"), 2,
         "kdbridge: --processors, --memory, --content and --layout are for scenarios, not for files"),
        (("/dev/null", "--on", "pty:"), 5, "kdbridge: /dev/null: a raw image needs at least one page of 4,096 bytes"),
        (("/", "--on", "pty:"), 5, "kdbridge: / cannot be read: Is a directory"),
        (("nosuch", "--on", "pty:"), 2,
         f"kdbridge: nosuch is neither a file nor a scenario; scenarios are {', '.join(SCENARIOS)}"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_sentence(words: tuple[str, ...], code: int, complaint: str) -> None:
    ended = call("simulate", *words)
    assert (ended.code, ended.out, ended.last) == (code, "", complaint)


def test_a_port_that_is_taken_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = call("simulate", "--on", f"tcp:127.0.0.1:{port}", "--memory", "16M")
    assert ended.code == 3
    assert ended.last == f"kdbridge: cannot serve on tcp:127.0.0.1:{port}: Address already in use"


def test_a_file_at_the_place_of_the_line_stays_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for on in (f"unix:{mine}", f"pty:{mine}"):
        ended = call("simulate", "--on", on, "--memory", "16M")
        assert ended.code == 3 and ended.last.startswith(f"kdbridge: cannot serve on {on}: ")
    assert mine.read_text() == "mine"


def test_a_damaged_dump_is_told_of_by_name(home: Home, tmp_path: Path) -> None:
    stub = tmp_path / "stub.dmp"
    stub.write_bytes(home.small.read_bytes()[:5000])
    ended = call("simulate", stub, "--on", "pty:")
    assert ended.code == 5
    assert ended.last.startswith(f"kdbridge: {stub}: this is no dump that can be served: ")


def test_the_scenarios_are_in_the_help() -> None:
    text = call("simulate", "--help").out
    for scenario in SCENARIOS.values():
        assert f"  {scenario.name} " in text
