"""--infer, --strict: what may be taken for true without being read."""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.acquire import Inference
from kdbridge.errors import UsageError
from kdbridge.local_images import LocalImages

from .gathered import gathered

__all__ = ["inference_options"]

_OPTIONS = (
    click.option(
        "--infer", type=click.Choice(["zeros"]), multiple=True,
        help="zeros: do not read pages that the target's PFN database lists as zeroed. The dump says so.",
    ),
    click.option(
        "--images", type=click.Path(path_type=Path), metavar="DIR",
        help="Take read-only parts of modules that nobody wrote to from their image files in this folder, if a sample "
        "of pages that are read is the same. The dump says so.",
    ),
    click.option("--strict", is_flag=True, help="Read everything, also what was inferred before."),
)  # fmt: skip


def _inference(infer: tuple[str, ...], images: Path | None, *, strict: bool) -> Inference:
    if (infer or images) and strict:
        raise UsageError("--strict forbids what --infer and --images ask for: name one of them")
    return Inference("zeros" in infer, LocalImages(images) if images else None, strict)


inference_options = gathered(_OPTIONS, "inference", _inference, "infer", "images", "strict")
"""The options; the verb is given one `inference`."""
