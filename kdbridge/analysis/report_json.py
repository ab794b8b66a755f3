"""An analysis as a document for programs. Schema kdbridge-analysis/1, described in docs/analysis.md.

Addresses, offsets, codes and registers are hexadecimal strings; counts, ids and sizes are numbers; what is not known
is null. Every key is always there.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdbridge.target import NAME_NOT_READ, UnloadedModule
from kdbridge.words import break_status_words, moment_of
from protocol.address import PageRuns

from .model import (
    Analysis,
    BugCheckFact,
    CrashContext,
    ExceptionFact,
    Frame,
    Held,
    ImageFact,
    Instruction,
    MemoryOperand,
    Missing,
    ParameterFact,
    Place,
    ProcessFact,
    Stack,
    Suspect,
    System,
    ThreadFact,
    Times,
)

__all__ = [
    "ANALYSIS_SCHEMA",
    "analysis_document",
    "image_documents",
    "missing_documents",
    "part_document",
    "process_documents",
    "stack_documents",
    "unloaded_documents",
]

ANALYSIS_SCHEMA = "kdbridge-analysis/1"
"""The number goes up when a key changes its meaning or goes away; keys may be added meanwhile."""

_Document = dict[str, object]


def analysis_document(analysis: Analysis) -> _Document:
    """All of it. Of the first screen only: null for what was not looked at."""
    first, status = analysis.first_screen, analysis.target.break_status
    return part_document(
        analysis.source,
        extent="first screen" if analysis.first_screen else "all",
        bucket=analysis.bucket,
        bug_check_known=analysis.target.bug_check_code is not None,
        stopped_by=None if status is None else break_status_words(status),
        bug_check=_bug_check(analysis.bug_check),
        suspect=_suspect(analysis.suspect),
        crash=_crash(analysis.crash),
        stopped_processor=analysis.stopped,
        stack=None if analysis.stack is None else _stack(analysis.stack),
        stacks=None if first else stack_documents(analysis.stacks),
        current_thread=None if analysis.current is None else _thread(analysis.current),
        modules=image_documents(analysis.images),
        unloaded_modules=unloaded_documents(analysis.unloaded),
        processes=None if first else process_documents(analysis.processes),
        system=_system(analysis.system),
        times=_times(analysis.times),
        console=analysis.console,
        print_buffer=analysis.print_buffer,
        coverage=_coverage(analysis.held),
        pieces=[{"what": what, "address": hex(at), "bytes": data.hex()} for what, at, data in analysis.pieces],
        missing=missing_documents(analysis.missing),
        bytes_read=analysis.bytes_read,
    )


def part_document(source: str, **parts: object) -> _Document:
    """A document with these parts alone, as the verbs for one part print it."""
    return {"schema": ANALYSIS_SCHEMA, "source": source, **parts}


def stack_documents(stacks: Sequence[Stack]) -> list[_Document]:
    """Stacks, in their order."""
    return [_stack(stack) for stack in stacks]


def image_documents(images: Sequence[ImageFact]) -> list[_Document]:
    """Loaded images, in load order."""
    return [_image(image) for image in images]


def unloaded_documents(unloaded: Sequence[UnloadedModule]) -> list[_Document]:
    """Images that were unloaded, in their order."""
    return [{"name": one.name, "start": hex(one.start), "end": hex(one.end)} for one in unloaded]


def process_documents(processes: Sequence[ProcessFact]) -> list[_Document]:
    """Processes, with their threads where those were asked for."""
    return [_process(process) for process in processes]


def missing_documents(missing: Sequence[Missing]) -> list[_Document]:
    """What could not be determined, and which memory it lacked."""
    return [
        {"what": one.what, "why": one.why, "ranges": [[hex(address), hex(count)] for address, count in one.ranges]}
        for one in missing
    ]


def _place(place: Place) -> _Document:
    return {
        "address": hex(place.address),
        "text": str(place),
        "module": place.module or None,
        "offset": hex(place.offset) if place.module else None,
        "symbol": place.symbol or None,
        "displacement": hex(place.displacement) if place.symbol else None,
        "known_by": place.known_by or None,
    }


def _place_or_none(place: Place | None) -> _Document | None:
    return None if place is None else _place(place)


def _bug_check(fact: BugCheckFact | None) -> _Document | None:
    if fact is None:
        return None
    return {
        "code": hex(fact.code),
        "name": fact.name,
        "meaning": fact.meaning,
        "parameters": [_parameter(one) for one in fact.parameters],
    }


def _parameter(fact: ParameterFact) -> _Document:
    return {
        "number": fact.number,
        "value": hex(fact.value),
        "kind": fact.kind,
        "words": fact.words,
        "place": _place_or_none(fact.place),
        "region": fact.region or None,
    }


def _suspect(suspect: Suspect | None) -> _Document | None:
    if suspect is None:
        return None
    return {
        "module": suspect.module,
        "place": _place(suspect.place),
        "rule": suspect.rule,
        "why": suspect.why,
        "certainty": suspect.certainty.value,
    }


def _crash(crash: CrashContext | None) -> _Document | None:
    if crash is None:
        return None
    return {
        "origin": crash.origin,
        "better_than_break": crash.better_than_break,
        "processor": crash.processor,
        "place": _place(crash.place),
        "registers": {name: hex(value) for name, value in crash.context.values.items() if name in crash.known},
        "exception": _exception(crash.exception),
        "instructions": [_instruction(one) for one in crash.instructions],
        "passed_over": list(crash.passed_over),
    }


def _exception(fact: ExceptionFact | None) -> _Document | None:
    if fact is None:
        return None
    return {
        "code": hex(fact.code),
        "words": fact.words,
        "place": _place(fact.place),
        "parameters": [hex(value) for value in fact.parameters],
    }


def _instruction(one: Instruction) -> _Document:
    return {
        "address": hex(one.address),
        "bytes": one.data.hex(),
        "text": one.text,
        "operands": [_operand(operand) for operand in one.operands],
    }


def _operand(one: MemoryOperand) -> _Document:
    return {
        "expression": one.expression,
        "address": hex(one.address),
        "access": one.access,
        "size": one.size,
        "bytes": None if one.content is None else one.content.hex(),
        "place": _place_or_none(one.place),
    }


def _stack(stack: Stack) -> _Document:
    return {
        "processor": stack.processor,
        "thread": None if stack.thread is None else hex(stack.thread),
        "whole": stack.whole,
        "ended": stack.ended,
        "frames": [_frame(frame) for frame in stack.frames],
    }


def _frame(frame: Frame) -> _Document:
    return {
        "instruction": hex(frame.instruction),
        "stack_pointer": hex(frame.stack_pointer),
        "return_address": hex(frame.return_address),
        "place": _place(frame.place),
        "trust": frame.trust.name.lower(),
        "guessed": frame.trust.guessed,
        "note": frame.note or None,
    }


def _image(fact: ImageFact) -> _Document:
    module = fact.module
    read = module.name != NAME_NOT_READ
    return {
        "name": module.name if read else None,
        "path": module.path or None,
        "base": hex(module.base),
        "size": hex(module.size),
        "time_date_stamp": hex(module.time_date_stamp) if read else None,
        "check_sum": hex(module.check_sum) if read else None,
        "version": fact.version or None,
        "company": fact.company or None,
        "description": fact.description or None,
        "pdb": {"name": fact.pdb_name, "guid": fact.pdb_guid, "age": fact.pdb_age} if fact.pdb_name else None,
        "microsoft": fact.microsoft,
        "because": fact.because or None,
    }


def _process(fact: ProcessFact) -> _Document:
    return {
        "address": hex(fact.address),
        "process_id": fact.process_id,
        "parent_id": fact.parent_id,
        "name": fact.name or None,
        "directory_table_base": hex(fact.directory_table_base),
        "current_on": list(fact.current_on),
        "threads": [_thread(thread) for thread in fact.threads],
    }


def _thread(fact: ThreadFact) -> _Document:
    return {
        "address": hex(fact.address),
        "process_id": fact.process_id,
        "thread_id": fact.thread_id,
        "state": fact.state,
        "processor": fact.processor,
        "stack": None if fact.stack is None else _stack(fact.stack),
    }


def _system(system: System) -> _Document:
    return {
        "windows": system.windows,
        "build_lab": system.build_lab or None,
        "product": system.product or None,
        "system_root": system.system_root or None,
        "processors": system.processors,
        "vendor": system.vendor or None,
        "megahertz": system.megahertz,
        "memory": system.memory,
        "firmware": [{"what": what, "text": text} for what, text in system.firmware],
    }


def _times(times: Times) -> _Document:
    return {
        "crash": _moment(times.crash),
        "boot": _moment(times.boot),
        "up_seconds": None if times.up is None else times.up / 1e7,
    }


def _moment(file_time: int | None) -> str | None:
    """A FILETIME as ISO 8601; null where it is beyond the calendar."""
    moment = None if file_time is None else moment_of(file_time)
    return None if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _coverage(held: Held | None) -> _Document | None:
    if held is None:
        return None
    return {
        "memory": _runs(held.memory),
        "held": _runs(held.held),
        "unreadable": _runs(held.unreadable),
        "inferred": _runs(held.inferred),
    }


def _runs(runs: PageRuns) -> list[list[str]]:
    return [[hex(run.base_page), hex(run.page_count)] for run in runs]
