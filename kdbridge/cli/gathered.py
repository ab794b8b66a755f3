"""Options that belong together reach a verb as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["gathered"]


def gathered(
    options: Sequence[Callable[..., Any]], name: str, make: Callable[..., object], *parameters: str
) -> Callable[..., Any]:
    """A decorator: click's `options`, whose `parameters` become one, `name`, by `make`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def verb(*args: Any, **given: Any) -> Any:
            value = make(**{parameter: given.pop(parameter) for parameter in parameters})
            return command(*args, **given, **{name: value})

        verb.__doc__, verb.__name__ = command.__doc__, command.__name__
        wrapped: Callable[..., Any] = verb
        for option in reversed(options):
            wrapped = option(wrapped)
        # The options that stand below in the source come later in the help.
        below = getattr(command, "__click_params__", [])
        wrapped.__click_params__ = [*below, *wrapped.__click_params__]  # type: ignore[attr-defined]
        return wrapped

    return decorate
