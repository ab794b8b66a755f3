"""--infer, --strict: what may be taken for true without being read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kdbridge.acquire import Inference
from kdbridge.errors import UsageError

__all__ = ["inference_options"]

_OPTIONS = (
    click.option(
        "--infer", type=click.Choice(["zeros"]), multiple=True,
        help="zeros: do not read pages that the target's PFN database lists as zeroed. The dump says so.",
    ),
    click.option("--strict", is_flag=True, help="Read everything, also what was inferred before."),
)  # fmt: skip


def inference_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; the verb is given one `inference`."""

    def with_inference(*args: Any, infer: tuple[str, ...], strict: bool, **rest: Any) -> Any:
        if infer and strict:
            raise UsageError("--strict forbids what --infer asks for: name one of them")
        return command(*args, inference=Inference(zeros="zeros" in infer, strict=strict), **rest)

    with_inference.__doc__ = command.__doc__
    with_inference.__name__ = command.__name__
    wrapped: Callable[..., Any] = with_inference
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    # The options that stand below in the source come later in the help.
    wrapped.__click_params__ = [*getattr(command, "__click_params__", []), *wrapped.__click_params__]  # type: ignore[attr-defined]
    return wrapped
