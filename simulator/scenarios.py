"""Machines by name: each is a situation that a debugger may find (kd-protocol 7.3), down to what it says first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_BREAKPOINT, STATUS_SUCCESS
from protocol.packet import INITIAL_PACKET_ID
from protocol.state_change import ExceptionChange, LoadSymbols

from .breaks import broken_in, crashed_on_request, first_break, last_break
from .crashes import CRASHES
from .errors import SimulationError
from .image import MemoryImage
from .kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from .machine import Behaviour, Machine, VirtualProcessor
from .options import Layout, as_layout
from .paging import translate
from .running import executes
from .target import Activity, Ask, Event, KdTarget, Load, OpenFile, Print, Quiet, Stop

__all__ = ["SCENARIOS", "RunningScenario", "Scenario", "ScenarioOptions", "machine_of", "start"]

_FIRST_API = 0x3130
_TARGET_TRIES = 20
_DUMP_SECONDS = 3.0
_FIRMWARE_SECONDS = 2.0
_FIRMWARE = b"\x1b[2J\x1b[01;01HPlatform firmware 2.10\r\nBooting from disk ...\r\n"
"""What a reset machine writes to the port before its kernel has it (kd-protocol 3.18)."""


@dataclass(frozen=True, slots=True)
class ScenarioOptions:
    """What a user may say about a scenario's machine. None: what the scenario itself prefers."""

    processors: int | None = None
    memory_size: int | None = None
    seed: int = 1
    content_size: int | None = None
    unreadable_pages: int | None = None
    runs: int | None = None
    layout: Layout = "desktop"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A situation: its machine, how that machine answers, and what it does by itself."""

    name: str
    text: str
    """One line for a list of scenarios."""
    kernel: KernelOptions
    behaviour: Behaviour = field(default_factory=Behaviour)
    script: Callable[[SimulatedKernel], list[Event]] = lambda kernel: []
    begin: Callable[[KdTarget], None] | None = None
    """Puts the target into the middle of something."""


@dataclass(slots=True)
class RunningScenario:
    """A scenario that was started: the target to serve, and the truth about its machine."""

    scenario: Scenario
    kernel: SimulatedKernel
    target: KdTarget
    pristine: MemoryImage
    """The memory as it was at the beginning."""


def machine_of(kernel: SimulatedKernel, behaviour: Behaviour | None = None) -> Machine:
    """Processors and memory of a kernel, ready to answer."""
    size = kernel.profile.prcb.special_registers_size
    image = kernel.image.copy()
    return Machine(
        memory=image,
        translate=lambda root, address: translate(image, root, address),
        version=kernel.version,
        processors=[
            VirtualProcessor(
                processor.number,
                processor.context(),
                processor.special_registers(size),
                processor.pcr,
                processor.prcb,
                processor.thread,
            )
            for processor in kernel.processors
        ],
        behaviour=behaviour or Behaviour(),
        current=kernel.stopped_processor,
    )


def start(name: str, options: ScenarioOptions | None = None) -> RunningScenario:
    """Make a scenario's machine and put it where the scenario begins. SimulationError names unknown ones."""
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise SimulationError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    asked = options or ScenarioOptions()
    wishes = {
        "processors": asked.processors,
        "memory_size": asked.memory_size,
        "content_size": asked.content_size,
        "unreadable_pages": asked.unreadable_pages,
        "runs": asked.runs,
    }
    wished = {name: value for name, value in wishes.items() if value is not None}
    kernel = build_kernel(as_layout(replace(scenario.kernel, seed=asked.seed, **wished), asked.layout))  # type: ignore[arg-type]
    target = KdTarget(
        machine_of(kernel, scenario.behaviour),
        KdcomLink(Role.TARGET, LinkTimers(tries=_TARGET_TRIES)),
        script=deque(scenario.script(kernel)),
        break_in=broken_in(kernel),
        crash=crashed_on_request(kernel),
        step=executes(kernel) if kernel.bug_check[0] == 0 else None,
    )

    def restart() -> tuple[Machine, deque[Event]]:
        """The same machine, started anew: nothing of the crash is left in its memory."""
        again = build_kernel(replace(kernel.options, stop="running", debugger_attached=True))
        target.break_in, target.crash, target.step = broken_in(again), crashed_on_request(again), executes(again)
        return machine_of(again, scenario.behaviour), deque([Quiet(_FIRMWARE_SECONDS, _FIRMWARE), *_boot(again)])

    target.restart = restart
    if scenario.begin is not None:
        scenario.begin(target)
    return RunningScenario(scenario, kernel, target, kernel.image)


def _boot(kernel: SimulatedKernel) -> list[Event]:
    """What a machine says while it starts: banner, then a notification for each image."""
    loads: list[Event] = [
        Load(LoadSymbols(module.path, module.base, 0xFFFF_FFFF_FFFF_FFFF, module.check_sum, module.size, unload=False))
        for module in kernel.modules
    ]
    return [*loads[:2], Print(b"KDTARGET: Refreshing KD connection\n"), *loads[2:]]


def _fatal_text(kernel: SimulatedKernel) -> list[Event]:
    code, *parameters = kernel.bug_check
    words = ",".join(f"0x{value:016X}" for value in parameters)
    return [
        Print(b"KDTARGET: Refreshing KD connection\n"),
        Print(f"\n*** Fatal System Error: 0x{code:08x}\n                       ({words})\n\n".encode()),
    ]


def _first_break(kernel: SimulatedKernel) -> list[Event]:
    return [Stop(apply=first_break(kernel)), Quiet(_DUMP_SECONDS), Stop(apply=last_break(kernel), again=True)]


def _attached(kernel: SimulatedKernel) -> list[Event]:
    return [*_fatal_text(kernel), *_first_break(kernel)]


def _in_the_middle(target: KdTarget) -> None:
    """A debugger was here: ids without SYNC, its last requests were answered and acknowledged."""
    target.link.continue_session(INITIAL_PACKET_ID, INITIAL_PACKET_ID | 1)
    change = ExceptionChange(
        STATUS_BREAKPOINT, 0, 0, target.machine.stopped_processor.program_counter, (0,), first_chance=True
    )
    target.begin(Activity.WAITING, target.make_change(change), 0.0)


def _reply_under_way(target: KdTarget) -> None:
    """A debugger read memory, and was gone before the answer came."""
    _in_the_middle(target)
    machine = target.machine
    request = Manipulate.request(
        ApiNumber.READ_VIRTUAL_MEMORY, address=machine.stopped_processor.program_counter, transfer_count=64
    )
    data = machine.read_virtual(machine.stopped_processor.program_counter, 64)
    target.send_reply(request.reply(STATUS_SUCCESS, data=data, actual_bytes=len(data)), 0.0)


_PROMPT = b"Break, Ignore, Terminate Process or Terminate Thread (bipt)? "


def _prompt(kernel: SimulatedKernel) -> list[Event]:
    return [
        OpenFile("\\SystemRoot\\System32\\drivers\\mydrv.sys"),
        Print(b"\n*** Assertion failed: Queue->Depth < QUEUE_LIMIT\n***   Source File: queue.c, line 212\n\n"),
        Ask(_PROMPT, 2),
    ]


_BUG_CHECK = KernelOptions(stop="bugcheck-final")
_ATTACHED = KernelOptions(stop="bugcheck-first", debugger_attached=True)
_BREAKPOINT = KernelOptions(stop="breakpoint", debugger_attached=True)
_RUNNING = KernelOptions(stop="running")
_OLD = KernelOptions(build=3790, stop="bugcheck-first", bug_check=BugCheck(0xD1), debugger_attached=True, processors=2)
_PHYSICAL = frozenset({ApiNumber.READ_PHYSICAL_MEMORY, ApiNumber.WRITE_PHYSICAL_MEMORY})
_NEWER_THAN_NT52 = frozenset(api for api in ApiNumber if api > _FIRST_API + 0x2E)


def _again(kernel: SimulatedKernel) -> list[Event]:
    return [Stop(apply=last_break(kernel), again=True)]


def _stopped(kernel: SimulatedKernel) -> list[Event]:
    return [Stop()]


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "bugcheck", "a blue screen; no debugger was there when it came, automatic restart is off", _BUG_CHECK,
            script=_again,
        ),
        Scenario(
            "bugcheck-attached", "a blue screen while a debugger is attached: prints, a first break, a last one",
            _ATTACHED, script=_attached,
        ),
        Scenario(
            "breakpoint", "an int3 in a driver", _BREAKPOINT,
            # What comes behind the print, the processor runs into by itself.
            script=lambda kernel: [Print(b"mydrv: queue is up\n")],
        ),
        Scenario("running", "it runs, and stops when a debugger breaks in", _RUNNING),
        Scenario("booting", "it starts, and tells of every module it loads", _RUNNING, script=_boot),
        Scenario("silent", "stopped; its debugger took note of it and went away", _BREAKPOINT, begin=_in_the_middle),
        Scenario(
            "abandoned-reply", "stopped, and sending an answer to a debugger that went away", _BREAKPOINT,
            begin=_reply_under_way,
        ),
        Scenario(
            "abandoned-prompt", "waits for a file and for an answer to a prompt of a debugger that went away", _RUNNING,
            script=_prompt,
        ),
        Scenario(
            "nt52", "a checked Windows Server 2003: short KDBG, long module names, few requests known", _OLD,
            Behaviour(refused=_NEWER_THAN_NT52), script=_first_break,
        ),
        Scenario(
            "many-runs", "a blue screen of a machine with 60 runs of memory", replace(_BUG_CHECK, runs=60),
            script=_again,
        ),
        Scenario(
            "encoded-kdbg", "an int3 on a system that keeps its KDBG encoded",
            replace(_BREAKPOINT, build=22621, encoded_kdbg=True), script=_stopped,
        ),
        Scenario(
            "no-physical-reads", "a blue screen of a machine that refuses physical reads", _BUG_CHECK,
            Behaviour(refused=_PHYSICAL), script=_again,
        ),
        *(
            Scenario(
                f"bugcheck-{code:02x}", f"a blue screen: {crash.text}",
                replace(_BUG_CHECK, bug_check=BugCheck(code), many_prints=True), script=_again,
            )
            for code, crash in CRASHES.items()
        ),
        Scenario(
            "strange-answers", "a blue screen of a machine that answers as oddly as real ones were seen to",
            replace(_BUG_CHECK, foreign_block=True, unreadable_pages=3),
            Behaviour(
                largest_transfer=4096,
                refused=frozenset({ApiNumber.GET_CONTEXT_EX, ApiNumber.QUERY_MEMORY, ApiNumber.SEARCH_MEMORY,
                                   ApiNumber.READ_MACHINE_SPECIFIC_REGISTER}),
                whole_control_space=True,
                longer_context=0x100,
                garbage_processor=True,
            ),
            script=_again,
        ),
    )
}  # fmt: skip
"""By name, in the order in which they are told."""
