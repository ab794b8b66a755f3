"""What `dump` and `resume` do: connect, find out, read, write, verify; and go on with what was begun."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import cast

import trio

from kdbridge.acquire import Inference
from kdbridge.carry_on import carried_on
from kdbridge.double_reading import ReadTwice
from kdbridge.dump import DumpKind, DumpLayoutChoice, Rendered, render, verify
from kdbridge.errors import DiskFullError, DumpError, SnapshotError, TargetChangedError
from kdbridge.memory.files import DumpFile
from kdbridge.opening import OpenTarget
from kdbridge.order import DumpOrder
from kdbridge.plan import plan_up_to
from kdbridge.progress import Progress
from kdbridge.proof import prove_same_stop
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from kdbridge.transports import masked, parse_target, stable_address
from protocol.address import PAGE_SIZE
from protocol.errors import KdError

from .asked import check_runs
from .bar import shown_progress
from .budget_options import Limits
from .output import print_json, target_document
from .run import Interrupted, open_live, run, say
from .words import duration, quoted, size, who_line, why_lines

__all__ = ["Wishes", "announce", "bring_home", "default_folder", "keeping", "ways_on"]

_IN_PROCESS = ("sim", "replay")
"""Targets that are no farther away than this process: what is lost there does not come back."""
_SAMPLE, _SAMPLE_AGAIN = 16, 1
"""Pages that are read again to prove that it is the same stop: after any time, and after a moment without a line."""
_LISTEN_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of one run, beside what the order says. None of it is kept."""

    out: Path
    folder: Path
    keep: bool
    force: bool
    break_in: bool
    then: str
    wait: float
    reconnect: float | None
    """Seconds to look for a target that is lost; None: for ever, where there is anything to come back."""
    as_json: bool
    new_life: bool = False
    """If the machine is not in that stop any more, begin anew beside what was read of it."""
    twice: ReadTwice | None = None
    """How much is read a second time and compared."""
    limits: Limits = field(default_factory=Limits)
    """How much reading may take, from when the command was given."""
    inference: Inference = field(default_factory=Inference)
    """What may be taken for true without being read."""


async def bring_home(address: str, order: DumpOrder, wishes: Wishes, snapshot: Snapshot | None = None) -> int:
    """Do all of it, or, with a Snapshot that was opened for writing, what is left of it. The exit code."""
    home = _Home(address, order, wishes, snapshot)
    try:
        async with carried_on(home.connect, home.read, patience=home.patience, report=say) as opened:
            code = await home.conclude(opened)
    except BaseException:
        # The first error says what is wrong: a disk that is full is so when the Snapshot is closed, too.
        with suppress(SnapshotError):
            home.close()
        raise
    home.close()
    return code


class _Home:
    def __init__(self, address: str, order: DumpOrder, wishes: Wishes, snapshot: Snapshot | None) -> None:
        self.address = address
        self.order = order
        self.wishes = wishes
        self.snapshot = snapshot
        self.kind = DumpKind(order.kind)
        self.out = wishes.out
        self.budget = wishes.limits.budget()
        self.spent = ""
        self.patience = wishes.reconnect if wishes.reconnect is not None else inf
        if parse_target(address).scheme in _IN_PROCESS:
            self.patience = 0.0
        self._times = 0
        self._left = 0

    def close(self) -> None:
        if self.snapshot is not None:
            self.snapshot.close()

    def connect(self) -> AbstractAsyncContextManager[OpenTarget]:
        self._times += 1
        # An adapter that was pulled out may come back under another name.
        if self._times > 1:
            return open_live(
                stable_address(self.address), self.wishes.wait, listen=_LISTEN_AGAIN, connection=self._times
            )
        return open_live(self.address, self.wishes.wait, break_in=self.wishes.break_in)

    async def read(self, opened: OpenTarget) -> None:
        """Bring home what is not there yet. Begun again over another connection, it goes on."""
        folder, order = self.wishes.folder, self.order
        if (wish := self.wishes.twice) is not None:
            opened.session.twice.always, opened.session.twice.never = wish.share > 0, not wish.automatic
        if self.snapshot is not None:
            await self._prove(opened, self.snapshot)
        if self.snapshot is None:
            found = await opened.discover(lambda finding: None)
            announce(found)
            check_runs(DumpLayoutChoice(order.layout), len(found.runs or ()))
            say(f"reading {self.kind.words} into {folder}")
            self.snapshot = Snapshot.create(folder, found)
            order.save(folder)
        before = self.snapshot.held.page_count
        try:
            with shown_progress() as progress:

                def shown(one: Progress) -> None:
                    self._left = max((one.total or 0) - one.done, 0)
                    progress(one)

                acquired = await opened.fill(
                    self.snapshot, plan_up_to(self.kind.stage), shown, twice=self.wishes.twice, report=say,
                    budget=self.budget, inference=self.wishes.inference,
                )  # fmt: skip
        except DiskFullError as error:
            raise DiskFullError(
                f"{error}; about {size(self._left)} more are needed to read all, and room for the dump. When there is, "
                f"`{_resume(folder, self.out)}` goes on"
            ) from None
        self.spent = acquired.spent
        pages = self.snapshot.held.page_count
        known = f"; {before} were there before" if before else ""
        say(f"read {size((pages - before) * PAGE_SIZE)} in {pages - before} pages{known}")
        if self.snapshot.pieces[0]:
            say(f"read {size(self.snapshot.pieces[1])} in {self.snapshot.pieces[0]} pieces, by virtual address")
        if inferred := self.snapshot.inferred.page_count:
            say(f"{inferred} pages were not read, but inferred; `kdbridge verify` and the dump's own log tell of them")
        for line in (*acquired.compared, *acquired.unread.lines()):
            say(f"  {line}")

    async def _prove(self, opened: OpenTarget, snapshot: Snapshot) -> None:
        """Raises TargetChangedError where the machine is not in the stop that the Snapshot was read from."""
        say("is it the same machine, in the same stop?")
        started, before = trio.current_time(), opened.session.engine.bytes_received
        await opened.adopt(snapshot.target)
        proof = await prove_same_stop(
            opened, opened.physical, snapshot, sample=_SAMPLE if self._times == 1 else _SAMPLE_AGAIN
        )
        cost = size(opened.session.engine.bytes_received - before)
        if proof.same:
            took = duration(trio.current_time() - started)
            say(f"it is: {', '.join(proof.compared)} are as before ({cost} read for that, {took})")
            snapshot.log(f"gone on with: {', '.join(proof.compared)} are as before")
            return
        differences = "; ".join(proof.differences)
        snapshot.log(f"not the same stop: {differences}")
        if not self.wishes.new_life:
            raise TargetChangedError(
                f"this is not the stop that {snapshot.path} was read from: {differences}. Nothing was mixed. "
                f"`{_resume(self.wishes.folder, self.out)} --new-life` begins anew, and keeps what was read beside"
            )
        snapshot.close()
        self.snapshot = None
        opened.forget()
        say(f"this is another stop: {differences}; what was read before is kept in {_set_aside(self.wishes.folder)}")

    async def conclude(self, opened: OpenTarget) -> int:
        """Write the dump, say what it is, and do with the machine what was wished."""
        order, wishes = self.order, self.wishes
        snapshot = cast("Snapshot", self.snapshot)  # `read` was finished
        kind = self._kind(snapshot)
        rendered = await _write(snapshot, self.out, order, kind, wishes)
        found = snapshot.target
        code = _conclude(rendered, found, wishes.folder, kept=wishes.keep or bool(self.spent))
        if wishes.as_json:
            print_json({"kind": str(kind), "ended_by": self.spent or None, **_document(rendered, found)})
        if self.spent:
            code = 1
            say(f"`{_resume(wishes.folder, self.out)}` reads what is left of {self.kind.words}")
        if wishes.then != "leave":
            await _then(opened, wishes.then)
        elif wishes.break_in:
            say(f"the machine is left stopped; `{quoted('kdbridge', 'continue', masked(self.address))}` lets it go on")
        else:
            say("the machine is left as it was found: stopped")
        say(f"next: {quoted('kdbridge', 'analyze', self.out)}   or, on Windows: {quoted('windbg', '-z', self.out)}")
        return code

    def _kind(self, snapshot: Snapshot) -> DumpKind:
        """What was asked for; where the budget was used up before, the best kind that is whole."""
        best = DumpKind.best_of(snapshot.reached)
        if not self.spent or (best is not None and best.stage >= self.kind.stage):
            self.spent = ""
            return self.kind
        whole = f"{best.words} is whole" if best is not None else "not even a small dump is whole"
        say(f"{self.spent} that may be used {'are' if self.spent.endswith('s') else 'is'} over: {whole}")
        return best or DumpKind.SMALL


async def _write(snapshot: Snapshot, out: Path, order: DumpOrder, kind: DumpKind, wishes: Wishes) -> Rendered:
    layout = DumpLayoutChoice(order.layout) if kind.value == order.kind else DumpLayoutChoice.AUTO
    with shown_progress() as progress:
        rendered = await render(
            snapshot, snapshot.target, out, kind=kind, layout=layout,
            comment=order.comment, force=wishes.force, partial=True, strict=wishes.inference.strict, progress=progress,
        )  # fmt: skip
        with DumpFile(out) as dump:
            checked = await verify(dump, snapshot, progress)
    if not checked.good:
        problems = "; ".join([*checked.problems, *(f"frame {pfn:#x} differs" for pfn in checked.differing[:4])])
        raise DumpError(f"{out} was written, but does not pass verification: {problems}. The Snapshot is kept.")
    return rendered


def _conclude(rendered: Rendered, found: Target, folder: Path, *, kept: bool) -> int:
    say(f"{rendered.path}: dump type {rendered.dump_type.value} ({rendered.dump_type.name}), {size(rendered.size)}, "
        f"{rendered.amount}, verified")  # fmt: skip
    if rendered.unreadable:
        say(f"{rendered.unreadable} pages could not be read; the Snapshot's log lists them")
    if rendered.missing:
        say(f"{rendered.missing} pages that belong into this kind were not read")
    for text in rendered.shortcomings:
        say(f"missing: {text}")
    flawed = bool(rendered.unreadable or rendered.missing or rendered.shortcomings or found.shortcomings)
    if kept or flawed:
        say(f"the Snapshot is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if flawed else 0


async def _then(opened: OpenTarget, then: str) -> None:
    if then == "reboot":
        acknowledged = await opened.session.reboot()
        say("the machine restarts" if acknowledged else "told to restart; it did not acknowledge, and may have")
        return
    again = await opened.session.resume()
    say(
        "the machine goes on"
        if not again
        else "told to go on; it stopped again at once (a bug check's last break does)"
    )


def _document(rendered: Rendered, found: Target) -> dict[str, object]:
    return {
        "path": str(rendered.path),
        "dump_type": rendered.dump_type.value,
        "size": rendered.size,
        "pages": rendered.pages,
        "pieces": rendered.pieces,
        "unreadable": rendered.unreadable,
        "missing": rendered.missing,
        "overlaid": rendered.overlaid,
        "shortcomings": list(rendered.shortcomings),
        "target": target_document(found),
    }


def announce(found: Target) -> None:
    """Who it is, why it stopped, and what could not be found out."""
    for line in (f"found {who_line(found)}", *why_lines(found)):
        say(line)
    for finding in found.shortcomings:
        say(f"  missing: {finding.step}: {finding.text}")


def keeping(folder: Path, out: Path, kind: str, work: Callable[[], Awaitable[int]]) -> int:
    """Run it. However it fails, the user is told what is kept of it and how to go on."""
    try:
        return run(work)
    except Interrupted:
        raise Interrupted(_what_is_kept(folder, out, kind)) from None
    except KdError:
        if kept := _what_is_kept(folder, out, kind):
            say(kept)
        raise


def ways_on(folder: Path, out: Path, kind: str) -> str:
    """What can be done with a Snapshot that was not finished."""
    force = ("--force",) if out.exists() else ()
    convert = quoted("kdbridge", "convert", folder, out, "--kind", kind, "--partial", *force)
    return f"`{_resume(folder, out)}` goes on, `{convert}` makes a dump of what is there"


def _what_is_kept(folder: Path, out: Path, kind: str) -> str:
    if not Snapshot.is_snapshot(folder):
        return ""
    try:
        with Snapshot.open(folder) as snapshot:
            pages = snapshot.held.page_count
    except SnapshotError:
        return ""
    if not pages:
        return f"no page is kept; {folder} holds registers and what was found out, and can be removed"
    return f"{pages} pages ({size(pages * PAGE_SIZE)}) are kept in {folder}; {ways_on(folder, out, kind)}"


def _resume(folder: Path, out: Path) -> str:
    force = ("--force",) if out.exists() else ()
    return quoted("kdbridge", "resume", out if folder == default_folder(out) else folder, *force)


def default_folder(out: Path) -> Path:
    """Where the Snapshot of a dump is kept, unless the user says otherwise."""
    return out.parent / (out.name + ".snapshot")


def _set_aside(folder: Path) -> Path:
    """Give an old Snapshot another name. Raises SnapshotError."""
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(kept)
    except OSError as error:
        raise SnapshotError(f"{folder} cannot be renamed: {error.strerror or error}") from None
    return kept
