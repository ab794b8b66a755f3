"""Public, documented, and listed in __all__ are one and the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.tree import parsed, sources


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, those under `if` and `try` included."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _top_level(getattr(statement, part, []))
        if isinstance(statement, ast.Try):
            for handler in statement.handlers:
                yield from _top_level(handler.body)


def _assigned(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds by assignment."""
    match statement:
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case _:
            pass


def _imported(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds by import."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)


def _exported(tree: ast.Module) -> list[str] | None:
    """What __all__ lists, None where there is no __all__."""
    for statement in tree.body:
        if "__all__" in _assigned(statement) and isinstance(statement, ast.Assign | ast.AnnAssign):
            assert statement.value is not None
            names = ast.literal_eval(statement.value)
            assert all(isinstance(name, str) for name in names)
            return list(names)
    return None


def complaints(tree: ast.Module) -> list[str]:
    """Every way in which a module's public names, docstrings and __all__ differ."""
    statements = list(_top_level(tree.body))
    definitions = [s for s in statements if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    defined = {definition.name for definition in definitions}
    defined |= {name for statement in statements for name in _assigned(statement)}
    public = {name for name in defined if not name.startswith("_")}
    exported = _exported(tree)
    if exported is None:
        return [f"defines {', '.join(sorted(public))}, but has no __all__"] if public else []
    known = defined | {name for statement in statements for name in _imported(statement)}
    found = [f"{name} is in __all__, but nothing defines it" for name in exported if name not in known]
    found += [f"{name} is public, but not in __all__" for name in sorted(public - set(exported))]
    found += [f"{name} is in __all__ twice" for name in sorted(set(exported)) if exported.count(name) > 1]
    found += [
        f"{definition.name} is public, but has no docstring"
        for definition in definitions
        if definition.name in exported and not ast.get_docstring(definition)
    ]
    return found


@pytest.mark.parametrize("name", sources())
def test_public_means_documented_and_listed(name: str) -> None:
    assert complaints(parsed(name)) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def speak():\n    '''Say it.'''\n", "defines speak, but has no __all__"),
        ("__all__ = ['speak']\n", "speak is in __all__, but nothing defines it"),
        ("__all__ = []\nLOUD = 1\n", "LOUD is public, but not in __all__"),
        ("__all__ = ['Voice']\nclass Voice: ...\n", "Voice is public, but has no docstring"),
    ],
)
def test_the_rule_bites(source: str, complaint: str) -> None:
    assert complaints(ast.parse(source)) == [complaint]
