"""--json: one document on stdout, for scripts."""

from __future__ import annotations

import json

import click

from kdbridge.errors import FileError
from kdbridge.target import Target
from kdbridge.target_json import target_to_json
from protocol.bugcheck import describe

from .words import harmless

__all__ = ["json_option", "print_json", "target_document", "tell"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def tell(text: str) -> None:
    """A line of the answer, on stdout. Names in it may be the target's: what a terminal would obey is taken out."""
    _print(harmless(text))


def print_json(document: object) -> None:
    """The document, indented, in ASCII."""
    _print(json.dumps(document, indent=1))


def _print(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"standard output cannot be written: {error.strerror or error}") from None


def target_document(target: Target) -> dict[str, object]:
    """A Target, with its bug check in words."""
    document = target_to_json(target)
    if target.bug_check_code:
        text = describe(target.bug_check_code, target.bug_check_parameters)
        document["bug_check"] = {"name": text.name, "meaning": text.meaning, "parameters": list(text.parameters)}
    return document
