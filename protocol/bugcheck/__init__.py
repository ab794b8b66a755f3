"""Bug checks: every code that Microsoft publishes, its name, and what its four parameters mean, in our words."""

from __future__ import annotations

from .describe import BugCheckText, describe
from .model import BugCheck, Parameter, ParameterKind, Subcase, parameters_of
from .table import BUG_CHECKS, bug_check, bug_check_name

__all__ = [
    "BUG_CHECKS",
    "BugCheck",
    "BugCheckText",
    "Parameter",
    "ParameterKind",
    "Subcase",
    "bug_check",
    "bug_check_name",
    "describe",
    "parameters_of",
]
