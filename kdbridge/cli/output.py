"""--json: one document on stdout, for scripts."""

from __future__ import annotations

import json

import click

from kdbridge.target import Target
from kdbridge.target_json import target_to_json
from protocol.bugcheck import describe

__all__ = ["json_option", "print_json", "target_document"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def print_json(document: object) -> None:
    """The document, indented, in ASCII."""
    click.echo(json.dumps(document, indent=1))


def target_document(target: Target) -> dict[str, object]:
    """A Target, with its bug check in words."""
    document = target_to_json(target)
    if target.bug_check_code:
        text = describe(target.bug_check_code, target.bug_check_parameters)
        document["bug_check"] = {"name": text.name, "meaning": text.meaning, "parameters": list(text.parameters)}
    return document
