"""Plans: what to read, and in which order. They know memory and the target, never files or links."""

from .complete import complete_plan
from .kernel import kernel_plan
from .plan import Plan, PlannedPages
from .vital import vital_pages

__all__ = ["Plan", "PlannedPages", "complete_plan", "kernel_plan", "vital_pages"]
