"""The rules by which a driver is suspected, one after the other, over evidence made up for each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.analysis.model import (
    Certainty,
    CrashContext,
    ExceptionFact,
    Frame,
    ImageFact,
    Place,
    Stack,
    Suspect,
    Trust,
)
from kdbridge.analysis.names import Names
from kdbridge.analysis.suspect import RULES, Evidence, suspect_of
from kdbridge.analysis.whose import Judge, Whose
from kdbridge.target import Module, Target, UnloadedModule
from protocol.arch import AMD64
from protocol.bugcheck import BUG_CHECKS
from tests.kdbridge.analysis.made_up import KERNEL, MadeUp, module, target_of
from tests.kdbridge.cli.calling import call, sim

_NT = module("ntoskrnl.exe", KERNEL, path="\\SystemRoot\\system32\\ntoskrnl.exe")
_NTFS, _MYDRV, _OTHER, _WDF = (
    module(name, KERNEL + 0x100000 * number)
    for number, name in enumerate(("Ntfs.sys", "mydrv.sys", "other.sys", "Wdf01000.sys"), 1)
)
_FAR = module("vpn.sys", KERNEL + 0x500000, path="\\??\\C:\\Program Files\\VPN\\vpn.sys")
_MODULES = (_NT, _NTFS, _MYDRV, _OTHER, _WDF, _FAR)


def _frame(image: Module, offset: int = 0x1000, trust: Trust = Trust.UNWOUND) -> Frame:
    name = image.name.partition(".")[0].replace("ntoskrnl", "nt")
    return Frame(image.base + offset, 0, 0, Place(image.base + offset, name, offset), trust)


def _evidence(
    *frames: Frame,
    target: Target | None = None,
    crash_at: int | None = None,
    microsoft: dict[Module, bool | None] | None = None,
    exception: int | None = None,
    better: bool = True,
) -> Evidence:
    """The crash is where the innermost frame is, unless told, and so is the exception, if any, of this code.

    By default Ntfs is Microsoft's, mydrv a third party's.
    """
    target = target_of(*_MODULES, bug_check=0xD1) if target is None else target
    source = MadeUp({})
    names = Names(target.modules, (), KERNEL)
    judge = Judge(source)
    judge.know(target, names)
    told = {_NTFS: True, _MYDRV: False, _OTHER: False, _FAR: None} if microsoft is None else microsoft
    judge.facts.update(
        {one.base: ImageFact(one, microsoft=value, because="its version resource") for one, value in told.items()}
    )
    at = crash_at if crash_at is not None else (frames[0].instruction if frames else 0)
    place = next((frame.place for frame in frames if frame.instruction == at), Place(at))
    context = AMD64.context.decode(AMD64.context.encode({"context_flags": 0x10001F, "rip": at}))
    fact = None if exception is None else ExceptionFact(exception, "", place, ())
    crash = CrashContext("", better, 0, context, frozenset(), place, exception=fact)
    return Evidence(source, target, names, judge, crash, Stack(frames, "", whole=True) if frames else None)


async def _suspect(evidence: Evidence) -> Suspect:
    found = await suspect_of(evidence)
    assert found is not None
    return found


async def test_the_instruction_that_failed_comes_first() -> None:
    found = await _suspect(_evidence(_frame(_MYDRV, 0x1045), _frame(_OTHER), _frame(_NT)))
    assert (found.module, found.rule, found.certainty) == ("mydrv", "faulting instruction", Certainty.CERTAIN)
    assert found.place.offset == 0x1045
    assert "it is a third party's (its version resource)" in found.why


async def test_when_nobody_says_whose_it_is_it_is_less_sure() -> None:
    found = await _suspect(_evidence(_frame(_MYDRV), microsoft={_MYDRV: None}))
    assert (found.module, found.certainty) == ("mydrv", Certainty.LIKELY)


async def test_the_instruction_that_a_parameter_names_counts_as_well() -> None:
    target = target_of(*_MODULES, bug_check=0xD1, parameters=(8, 2, 0, _MYDRV.base + 0x77))
    found = await _suspect(_evidence(_frame(_NT), _frame(_OTHER), target=target))
    assert (found.module, found.place.offset, found.rule) == ("mydrv", 0x77, "faulting instruction")
    assert "parameter 4" in found.why


async def test_the_first_third_party_on_the_stack() -> None:
    frames = [_frame(_NT), _frame(_WDF), _frame(_NTFS), _frame(_OTHER, 0x222), _frame(_MYDRV), _frame(_NT)]
    found = await _suspect(_evidence(*frames))
    assert (found.module, found.rule, found.certainty) == ("other", "third party on the stack", Certainty.LIKELY)
    assert found.place.offset == 0x222


@pytest.mark.parametrize("trust", [Trust.SCANNED, Trust.FRAME_POINTER])
@pytest.mark.parametrize("guessed", [1, 2])
async def test_what_lies_behind_a_guess_is_a_guess(trust: Trust, guessed: int) -> None:
    frames = [_frame(_NT), _frame(_NT, 0x2000), _frame(_OTHER)]
    frames[guessed] = replace(frames[guessed], trust=trust)
    found = await _suspect(_evidence(*frames))
    assert (found.module, found.certainty) == ("other", Certainty.GUESS)
    assert "a guess" in found.why


async def test_a_driver_outside_of_windows_folder_is_a_third_party_s_by_guess() -> None:
    found = await _suspect(_evidence(_frame(_NT), _frame(_NTFS), _frame(_FAR)))
    assert (found.module, found.rule, found.certainty) == ("vpn", "third party on the stack", Certainty.GUESS)
    assert "Program Files" in found.why


@pytest.mark.parametrize(
    ("frames", "certainty"),
    [
        ([_frame(_NTFS, 0x30), _frame(_NT)], Certainty.LIKELY),
        ([_frame(_NT), _frame(_WDF), _frame(_NTFS, 0x30)], Certainty.GUESS),
    ],
)
async def test_a_driver_of_microsoft_s_if_there_is_no_other(frames: list[Frame], certainty: Certainty) -> None:
    found = await _suspect(_evidence(*frames))
    assert (found.module, found.rule, found.certainty) == ("Ntfs", "driver on the stack", certainty)
    assert found.place.offset == 0x30


async def test_a_driver_that_was_unloaded() -> None:
    gone = UnloadedModule("gone.sys", KERNEL + 0x900000, KERNEL + 0x910000, 0)
    target = replace(target_of(*_MODULES, bug_check=0x50), unloaded_modules=(gone,))
    found = await _suspect(_evidence(_frame(_NT), _frame(_OTHER), target=target, crash_at=gone.start + 0x123))
    assert (found.module, found.rule, found.certainty) == ("gone", "unloaded driver", Certainty.LIKELY)
    assert (found.place.module, found.place.offset) == ("gone", 0x123)


async def test_a_place_where_another_image_lies_now_is_not_the_unloaded_driver_s() -> None:
    gone = UnloadedModule("gone.sys", _NTFS.base - 0x1000, _NTFS.base + 0x8000, 1)
    target = target_of(*_MODULES, bug_check=0xD1, parameters=(8, 2, 0, _NTFS.base + 0x77))
    target = replace(target, unloaded_modules=(gone,))
    found = await _suspect(_evidence(_frame(_NTFS, 0x77), _frame(_NT), target=target))
    assert (found.module, found.rule) == ("Ntfs", "driver on the stack")
    # One byte before the image that lies there now, it is.
    target = replace(target, bug_check_parameters=(8, 2, 0, _NTFS.base - 1))
    alone = tuple(one for one in _MODULES if one is not _NT)
    found = await _suspect(_evidence(target=replace(target, modules=alone)))
    assert (found.module, found.rule, found.place.offset) == ("gone", "unloaded driver", 0xFFF)


async def test_where_the_processor_stands_is_no_fault() -> None:
    """Without better registers than the break's, only a parameter or the exception tells of an instruction."""
    target = target_of(*_MODULES, bug_check=0xC9)
    found = await _suspect(_evidence(_frame(_MYDRV), target=target, better=False))
    assert (found.rule, found.certainty) == ("third party on the stack", Certainty.LIKELY)
    found = await _suspect(_evidence(_frame(_NTFS), target=target, better=False))
    assert (found.rule, found.certainty) == ("driver on the stack", Certainty.GUESS)
    evidence = _evidence(_frame(_MYDRV, 0x80), target=target, better=False, exception=0xC0000005)
    found = await _suspect(evidence)
    assert (found.rule, found.certainty, found.place.offset) == ("faulting instruction", Certainty.CERTAIN, 0x80)
    assert found.why.startswith("the exception occurred in it")


async def test_an_address_as_a_parameter_is_the_last_resort() -> None:
    target = target_of(*_MODULES, bug_check=0xC9, parameters=(1, KERNEL + 0x10, _OTHER.base + 0x55, 0))
    found = await _suspect(_evidence(_frame(_NT), target=target))
    assert (found.module, found.rule, found.certainty) == ("other", "address as a parameter", Certainty.GUESS)


async def test_nobody_is_suspected() -> None:
    assert await suspect_of(_evidence(_frame(_NT), _frame(_WDF))) is None
    assert await suspect_of(_evidence()) is None


@pytest.mark.parametrize("code", [*(code for code, row in BUG_CHECKS.items() if row.asked_for), 0x100000E2])
async def test_nor_is_anybody_when_the_crash_was_asked_for(code: int) -> None:
    assert await suspect_of(_evidence(_frame(_MYDRV), target=target_of(*_MODULES, bug_check=code))) is None


_STANDING = target_of(*_MODULES, bug_check=0)
_UNKNOWN = target_of(*_MODULES, bug_check=None)


@pytest.mark.parametrize("exception", [None, 0x80000003, 0x80000004, 0x80000007, 0x40010005])
async def test_a_machine_that_only_stopped_has_no_suspect(exception: int | None) -> None:
    """It was broken into, hit a breakpoint, made a step, or was not stopped by anything that is known."""
    frames = (_frame(_MYDRV), _frame(_OTHER))
    assert await suspect_of(_evidence(*frames, target=_STANDING, exception=exception, better=False)) is None
    broken_into = replace(_UNKNOWN, break_status=1)
    assert await suspect_of(_evidence(*frames, target=broken_into, exception=exception, better=False)) is None


@pytest.mark.parametrize("target", [_STANDING, _UNKNOWN])
async def test_a_fault_is_one_without_a_bug_check_as_well(target: Target) -> None:
    found = await _suspect(_evidence(_frame(_MYDRV), target=target, exception=0xC0000005, better=False))
    assert (found.module, found.rule, found.certainty) == ("mydrv", "faulting instruction", Certainty.CERTAIN)


@pytest.mark.parametrize("status", [None, 3, 4, 5])
async def test_where_nobody_knows_of_a_bug_check_it_is_a_guess(status: int | None) -> None:
    target = replace(_UNKNOWN, break_status=status)
    found = await _suspect(_evidence(_frame(_NT), _frame(_MYDRV), target=target, exception=0x80000003, better=False))
    assert (found.module, found.rule, found.certainty) == ("mydrv", "third party on the stack", Certainty.GUESS)
    assert found.why.endswith("; but whether anything failed is not known")


def test_a_breakpoint_in_a_driver_is_not_told_as_a_fault() -> None:
    """The simulated machine stands at an int3 of mydrv: the bucket says where, and nobody is accused."""
    document = call("analyze", sim("breakpoint"), "--brief", "--json").document
    assert document["crash"]["exception"]["code"] == "0x80000003"
    assert document["suspect"] is None and document["bucket"].startswith("NO_BUGCHECK_mydrv+")


async def test_the_kernel_s_own_images_are_known_by_their_names() -> None:
    judge = _evidence().judge
    assert (await judge.of(_NT)).whose is (await judge.of(_WDF)).whose is Whose.INFRASTRUCTURE
    assert (await judge.of(_NTFS)).whose is Whose.MICROSOFT


def test_every_rule_says_what_it_does() -> None:
    assert [rule.name for rule in RULES] == [
        "faulting instruction", "unloaded driver", "named object", "third party on the stack", "driver on the stack",
        "address as a parameter",
    ]  # fmt: skip
    assert all(rule.text.endswith(".") for rule in RULES)
