"""What is said of a target in the terminal, and how words are quoted there. Plain values: `kdbridge.words`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

from kdbridge.target import Target, image_of
from kdbridge.words import (
    PRODUCT_TYPES,
    break_status_words,
    duration,
    file_time,
    harmless,
    hex_lines,
    register_lines,
    size,
)
from protocol.address import format_address
from protocol.arch import architecture_of
from protocol.bugcheck import describe
from protocol.layouts.version import SystemType

__all__ = [
    "duration",
    "file_time",
    "harmless",
    "hex_lines",
    "nearest",
    "quoted",
    "register_lines",
    "size",
    "target_lines",
    "who_line",
    "why_lines",
]


def quoted(*words: object) -> str:
    """Words as a person can paste them into a shell."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)


def who_line(target: Target) -> str:
    """Who it is, in one line."""
    version = target.version
    shared = target.shared_data
    name = "Windows" if version.system_type == SystemType.NT else f"system type {version.system_type}"
    if shared is not None and shared.nt_major_version:
        name += f" {shared.nt_major_version}.{shared.nt_minor_version}"
    checked = "checked" if version.checked else "free"
    count = len(target.processors)
    processors = f"{count} processor{'s' if count != 1 else ''}"
    memory = f", {size(target.runs.page_count << 12)} of memory" if target.runs is not None else ""
    architecture = architecture_of(version.machine_type)
    kind = architecture.name if architecture is not None else f"machine type {version.machine_type:#x}"
    return f"{name} build {version.build} {checked} {kind}, {processors}{memory}"


def why_lines(target: Target) -> Iterator[str]:
    """Why it stands still."""
    if target.bug_check_code:
        text = describe(target.bug_check_code, target.bug_check_parameters)
        yield f"bug check {target.bug_check_code:#x} {text.name}: {text.meaning}"
        for number, words in enumerate(text.parameters, 1):
            yield f"  parameter {number}: {words}"
    elif target.bug_check_code == 0:
        yield "no bug check"
    if target.break_status is not None:
        yield f"stopped by {break_status_words(target.break_status)}"
    elif target.stop is not None:
        place = target.stop.program_counter
        code = f"exception {target.stop.exception_code:#010x}"
        yield f"stopped by {code} at {format_address(place)} {nearest(target, place)}".rstrip()


def nearest(target: Target, address: int) -> str:
    """The module an address lies in, and how far."""
    module = image_of(target.modules, address)
    return "" if module is None else f"({module.name}+{address - module.base:#x})"


def target_lines(target: Target) -> Iterator[str]:
    """All that `info` tells."""
    yield who_line(target)
    if target.build_lab:
        yield f"  built as {target.build_lab}"
    if target.shared_data is not None:
        up = duration(target.shared_data.interrupt_time / 1e7)
        kind = PRODUCT_TYPES.get(target.shared_data.product_type, f"product type {target.shared_data.product_type}")
        root = f", {target.shared_data.system_root}" if target.shared_data.system_root else ""
        yield f"  {kind}{root}, {file_time(target.shared_data.system_time)}, up for {up}"
    yield from why_lines(target)
    yield "processors"
    architecture = architecture_of(target.version.machine_type)
    for processor in target.processors:
        rip, where = "no registers", ""
        if processor.context is not None and architecture is not None:
            place = processor.context[architecture.program_counter]
            rip, where = f"{architecture.program_counter} {format_address(place)}", nearest(target, place)
        prcb = f"KPRCB {format_address(processor.prcb)}" if processor.prcb else "KPRCB unknown"
        yield f"  {processor.number:3}  {prcb}  {rip} {where}".rstrip()
    if target.runs is not None:
        yield "physical memory runs"
        for run in target.runs:
            yield f"  {run.base_page << 12:#014x} - {run.end_page << 12:#014x}  {size(run.page_count << 12)}"
    yield f"modules ({len(target.modules)})"
    for module in target.modules:
        stamp = f"{module.time_date_stamp:08x}"
        yield f"  {format_address(module.base)}  {module.size:8x}  {stamp}  {module.path or module.name}"
    if target.unloaded_modules:
        yield f"unloaded modules ({len(target.unloaded_modules)})"
        for gone in target.unloaded_modules:
            yield f"  {format_address(gone.start)}  {gone.end - gone.start:8x}  {gone.name}"
    if target.shortcomings:
        yield "what could not be found"
        for finding in target.shortcomings:
            yield f"  {finding.step}: {finding.text}"
