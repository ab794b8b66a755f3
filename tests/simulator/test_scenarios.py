"""Machines by name: each says first what kd-protocol 7.3 says of its situation, one seed being one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from protocol.state_change import ExceptionChange, LoadSymbols, StateChange
from simulator.errors import SimulationError
from simulator.scenarios import SCENARIOS, RunningScenario, ScenarioOptions, start
from simulator.target import CLOCK_TICK, Activity
from tests.raw import A, ack
from tests.recording import Packet, split

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
SYNC = A | 0x800
REQUIRED = {
    "bugcheck", "bugcheck-attached", "breakpoint", "running", "booting", "abandoned-reply", "abandoned-prompt", "nt52",
    "many-runs", "encoded-kdbg", "no-physical-reads",
}  # fmt: skip
SMALL = ScenarioOptions(memory_size=32 << 20, processors=2)


class Session:
    """A debugger at the other end, by hand: acknowledges everything, remembers what it heard."""

    def __init__(self, running: RunningScenario) -> None:
        self.running, self.target, self.now = running, running.target, 0.0
        self.heard: list[Packet] = []
        self.written = b""
        self._packet_id = A

    def run(self, seconds: float, *, answer: bool = True) -> list[Packet]:
        """What is said in this time."""
        end, first = self.now + seconds, len(self.heard)
        while True:
            said = b"".join(self.target.data_to_send())
            self.written += said
            for packet in split(said)[0]:
                self.heard.append(packet)
                if not packet.control and answer:
                    self.target.receive_data(ack(packet.packet_id & ~0x800), self.now)
                    if packet.packet_id & 0x800:
                        self._packet_id = A
            if said:
                continue
            due = self.target.next_timeout()
            if due is None or due > end:
                self.now = end
                return self.heard[first:]
            self.now = max(due, self.now)
            self.target.handle_timeout(self.now)

    def ask(self, api: ApiNumber, processor: int = 0, **fields: int) -> Manipulate | None:
        request = Manipulate.request(api, processor=processor, data=b"", **fields)
        self.send(2, request.encode())
        replies = [p for p in self.run(0.0) if p.packet_type == 2]
        return Manipulate.decode(replies[0].payload) if replies else None

    def send(self, packet_type: int, payload: bytes) -> None:
        self.target.receive_data(encode_data(packet_type, self._packet_id, payload), self.now)
        self._packet_id ^= 1

    def step_over(self) -> None:
        """Move PC past an int3, as a debugger does before it continues."""
        context = self.ask(ApiNumber.GET_CONTEXT)
        assert context is not None
        pc = int.from_bytes(context.data[0xF8:0x100], "little") + 1
        changed = context.data[:0xF8] + pc.to_bytes(8, "little") + context.data[0x100:]
        self.send(2, Manipulate.request(ApiNumber.SET_CONTEXT, processor=0, data=changed).encode())
        self.run(0.0)

    def go(self, seconds: float = 0.0) -> list[Packet]:
        first = len(self.heard)
        self.ask(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400, current_symbol_start=1)
        self.run(seconds)
        return [packet for packet in self.heard[first:] if not packet.control]


def _heads(packets: list[Packet]) -> list[tuple[int, int]]:
    return [(packet.packet_type, packet.packet_id) for packet in packets]


def _exception(packet: Packet) -> tuple[int, int]:
    change = StateChange.decode(packet.payload)
    assert isinstance(change.event, ExceptionChange)
    return change.event.code, change.program_counter


def test_all_that_are_required_are_there() -> None:
    assert set(SCENARIOS) >= REQUIRED
    assert all(name == scenario.name and scenario.text for name, scenario in SCENARIOS.items())
    with pytest.raises(SimulationError, match="there is no scenario 'blue'; there are: bugcheck, "):
        start("blue")


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_seed_says_the_same_to_the_last_byte(name: str) -> None:
    def said(seed: int) -> bytes:
        options = ScenarioOptions(memory_size=32 << 20, processors=3, seed=seed)
        session = Session(start(name, options))
        session.run(1.0)
        session.target.receive_data(b"b", session.now)
        session.run(4.0)
        return session.written + session.running.kernel.image.digest().encode()

    assert said(5) == said(5)
    assert said(5) != said(6)


@pytest.mark.parametrize("name", SCENARIOS)
def test_starting_touches_neither_memory_nor_devices(name: str) -> None:
    session = Session(start(name, SMALL))
    session.run(2.0)
    machine = session.target.machine
    assert machine.memory.digest() == session.running.pristine.digest()
    assert not machine.memory.device_accesses and not machine.touched


@pytest.mark.parametrize("name", ["bugcheck", "many-runs", "no-physical-reads", "strange-answers"])
def test_a_blue_screen_repeats_its_last_break_for_ever(name: str) -> None:
    session = Session(start(name, SMALL))
    said = session.run(30.5, answer=False)
    assert _heads(said) == [(7, SYNC)] * 31
    kernel = session.running.kernel
    assert _exception(said[0]) == (0x80000003, kernel.symbols["DbgBreakPointWithStatus"])
    session.run(1.5)
    assert [_exception(packet)[0] for packet in session.go(60.0)] == [0x80000003], "a continue changes nothing (T60)"


def test_a_blue_screen_with_a_debugger_attached() -> None:
    """kd-protocol 7.2: prints, first break, silence, last break."""
    session = Session(start("bugcheck-attached", SMALL))
    first = session.run(1.0)
    assert [packet.packet_type for packet in first] == [3, 3, 7]
    assert first[0].payload[0x10:] == b"KDTARGET: Refreshing KD connection\n"
    kernel = session.running.kernel
    code, *parameters = kernel.bug_check
    fatal = "\n*** Fatal System Error: 0x%08x\n                       (0x%016X,0x%016X,0x%016X,0x%016X)\n\n"
    assert first[1].payload[0x10:].decode() == fatal % (code, *parameters)

    def status() -> int:
        context = session.ask(ApiNumber.GET_CONTEXT)
        assert context is not None
        return int.from_bytes(context.data[0x80:0x88], "little")  # rcx

    assert status() == 3
    session.step_over()
    assert session.go(1.0) == []
    assert [packet.packet_type for packet in session.run(5.0)] == [7]
    assert status() == 4
    for _ in range(2):
        session.step_over()
        assert [_exception(packet)[1] for packet in session.go()] == [kernel.symbols["DbgBreakPointWithStatus"]]


def test_a_breakpoint_in_a_driver() -> None:
    session = Session(start("breakpoint", SMALL))
    said = session.run(1.0)
    assert [packet.packet_type for packet in said] == [3, 7]
    code, pc = _exception(said[1])
    kernel = session.running.kernel
    assert code == 0x80000003 and kernel.read_virtual(pc, 1) == b"\xcc"
    mydrv = next(module for module in kernel.modules if module.name == "mydrv")
    assert mydrv.base <= pc < mydrv.base + mydrv.size


def test_a_running_machine_stops_when_it_is_asked_to() -> None:
    session = Session(start("running", SMALL))
    assert session.run(60.0) == [] and session.target.activity is Activity.RUNNING
    session.target.receive_data(b"b", session.now)
    (packet,) = session.run(3 * CLOCK_TICK)
    kernel = session.running.kernel
    assert packet.packet_id == SYNC
    assert _exception(packet) == (0x80000003, kernel.symbols["DbgBreakPointWithStatus"])
    context = session.ask(ApiNumber.GET_CONTEXT)
    assert context is not None and int.from_bytes(context.data[0x80:0x88], "little") == 1, "DBG_STATUS_CONTROL_C"


def test_a_booting_machine_tells_of_every_module() -> None:
    session = Session(start("booting", SMALL))
    loads, prints = [], 0
    packets = session.run(1.0)
    while packets:
        for packet in packets:
            prints += packet.packet_type == 3
            if packet.packet_type == 7:
                change = StateChange.decode(packet.payload)
                assert isinstance(change.event, LoadSymbols)
                loads.append(change.event)
        packets = session.go(1.0)
    modules = session.running.kernel.modules
    assert [load.base for load in loads] == [module.base for module in modules]
    assert [load.path for load in loads] == [module.path for module in modules]
    assert prints == 1 and session.target.activity is Activity.RUNNING


def test_a_machine_whose_debugger_left_it_is_silent_until_reset() -> None:
    session = Session(start("silent", SMALL))
    assert session.run(600.0) == [] and session.target.next_timeout() is None
    session.target.receive_data(bytes.fromhex("69696969 06000000 00000000 00000000"), session.now)
    assert _heads(session.run(0.0)) == [(6, 0), (7, A)]


def test_an_abandoned_reply_is_repeated_for_ever() -> None:
    session = Session(start("abandoned-reply", SMALL))
    said = session.run(99.5, answer=False)
    assert len(said) == 100 and set(_heads(said)) == {(2, A)}
    reply = Manipulate.decode(said[0].payload)
    pc = session.running.kernel.processors[0].context_values["rip"]
    assert reply.data == session.running.kernel.read_virtual(pc, 64)


def test_an_abandoned_prompt_waits_for_a_file_and_an_answer() -> None:
    session = Session(start("abandoned-prompt", SMALL))
    (request,) = session.run(1.0)
    assert request.packet_type == 11 and request.payload[:4] == bytes.fromhex("30340000")
    assert session.run(600.0) == [], "it answers nothing else (T19)"
    session.send(11, request.payload[:4] + bytes.fromhex("0f0000c0") + request.payload[8:64])
    assert [packet.packet_type for packet in session.run(1.0) if not packet.control] == [3, 3]
    assert session.heard[-1].payload[:4] == bytes.fromhex("31320000")
    session.send(3, bytes.fromhex("31320000 0600 0000 3d000000 01000000") + b"i")
    session.run(1.0)
    assert session.target.activity is Activity.RUNNING


def test_server_2003() -> None:
    session = Session(start("nt52", SMALL))
    session.run(1.0)
    kernel = session.running.kernel
    version = session.ask(ApiNumber.GET_VERSION)
    assert version is not None
    fields = version.fields()
    assert (fields["major_version"], fields["minor_version"], fields["max_manipulate"]) == (0x0C, 3790, 0x2E)
    assert kernel.kdbg["size"] == 0x318
    for api in (ApiNumber.GET_CONTEXT_EX, ApiNumber.SET_CONTEXT_EX):
        reply = session.ask(api)
        assert reply is not None and reply.status == 0xC0000001
    special = session.ask(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0x400)
    assert special is not None and len(special.data) == 0xD8


def test_many_runs() -> None:
    assert len(start("many-runs", SMALL).kernel.image.runs) == 60


def test_an_encoded_block() -> None:
    session = Session(start("encoded-kdbg", SMALL))
    session.run(1.0)
    block = session.running.kernel.kdbg_address
    reply = session.ask(ApiNumber.READ_VIRTUAL_MEMORY, address=block + 0x10, transfer_count=4)
    assert reply is not None and reply.status == 0 and reply.data != b"KDBG"


def test_no_physical_reads() -> None:
    session = Session(start("no-physical-reads", SMALL))
    session.run(1.0)
    reply = session.ask(ApiNumber.READ_PHYSICAL_MEMORY, address=0x1000, transfer_count=8)
    assert reply is not None and (reply.status, reply.data) == (0xC0000001, b"")


def test_strange_answers_are_those_that_were_seen() -> None:
    session = Session(start("strange-answers", SMALL))
    change = StateChange.decode(session.run(1.0)[0].payload)
    assert (change.processor_level, change.processor, change.number_processors) == (1284, 257, 2)
    context = session.ask(ApiNumber.GET_CONTEXT)
    assert context is not None and len(context.data) == 0x5D0
    read = session.ask(ApiNumber.READ_PHYSICAL_MEMORY, address=0x3000, transfer_count=4096)
    assert read is not None and len(read.data) == 4096
    for api in (ApiNumber.GET_CONTEXT_EX, ApiNumber.QUERY_MEMORY, ApiNumber.SEARCH_MEMORY):
        reply = session.ask(api)
        assert reply is not None and reply.status == 0xC0000001
    special = session.ask(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0xA8)
    assert special is not None and len(special.data) == 0xF0


def test_a_restart_begins_a_new_life() -> None:
    session = Session(start("bugcheck", SMALL))
    session.run(1.0)
    place = session.running.kernel.symbols["KiBugCheckData"]
    assert session.ask(ApiNumber.REBOOT) is None
    assert b"firmware" in session.written
    first = session.run(1.9)
    assert first == [], "firmware runs"
    (load,) = session.run(0.2)
    assert load.packet_id == SYNC and isinstance(StateChange.decode(load.payload).event, LoadSymbols)
    machine = session.target.machine
    assert machine.read_virtual(place, 8) != (0xD1).to_bytes(8, "little"), "nothing of the crash is left"
    while session.go(0.5):
        pass
    assert session.target.activity is Activity.RUNNING
    session.target.receive_data(b"b", session.now)
    assert [packet.packet_type for packet in session.run(1.0)] == [7]


def test_a_crash_that_was_asked_for() -> None:
    session = Session(start("running", SMALL))
    session.target.handle_timeout(0.0)
    session.target.receive_data(b"b", session.now)
    session.run(1.0)
    session.ask(ApiNumber.CAUSE_BUG_CHECK)
    assert [packet.packet_type for packet in session.run(60.0)] == [7]
    kernel = session.running.kernel
    data = session.target.machine.read_virtual(kernel.symbols["KiBugCheckData"], 40)
    assert data == (0xE2).to_bytes(8, "little") + bytes(32)
    context = session.ask(ApiNumber.GET_CONTEXT)
    assert context is not None and int.from_bytes(context.data[0x80:0x88], "little") == 4


# VmHWM and not ru_maxrss: the latter counts what the parent held when it forked.
_MEASURE = """
import json, re, sys, time
from pathlib import Path
from simulator.scenarios import ScenarioOptions, start
began = time.process_time()
start(sys.argv[1], ScenarioOptions(memory_size=64 << 30, processors=int(sys.argv[2])))
seconds = time.process_time() - began
print(json.dumps([seconds, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024]))
"""


@pytest.mark.parametrize(
    ("name", "processors"), [("bugcheck", 1), ("many-runs", 4), ("bugcheck", 64), ("bugcheck", 256)]
)
def test_64_gib_cost_little(name: str, processors: int) -> None:
    """In a process of its own, which has imported nothing else: MiB in all, and seconds of the processor."""
    command = [sys.executable, "-c", _MEASURE, name, str(processors)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, mebibytes = json.loads(done.stdout)
    assert mebibytes < 100
    assert seconds < (3 if processors < 256 else 5)
