"""--infer, --strict: what may be taken for true without being read."""

from __future__ import annotations

import click

from kdbridge.acquire import Inference
from kdbridge.errors import UsageError

from .gathered import gathered

__all__ = ["inference_options"]

_OPTIONS = (
    click.option(
        "--infer", type=click.Choice(["zeros"]), multiple=True,
        help="zeros: do not read pages that the target's PFN database lists as zeroed. The dump says so.",
    ),
    click.option("--strict", is_flag=True, help="Read everything, also what was inferred before."),
)  # fmt: skip


def _inference(infer: tuple[str, ...], *, strict: bool) -> Inference:
    if infer and strict:
        raise UsageError("--strict forbids what --infer asks for: name one of them")
    return Inference(zeros="zeros" in infer, strict=strict)


inference_options = gathered(_OPTIONS, "inference", _inference, "infer", "strict")
"""The options; the verb is given one `inference`."""
