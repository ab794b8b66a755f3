"""Plans: what to read, and in which order. They know memory and the target, never files or links."""

from .places import Places
from .plan import Plan, PlannedPages, Stage, VirtualRange
from .small import Batch, small_batches, small_plan
from .stages import active_plan, complete_plan, kernel_plan, plan_up_to
from .threads import Working, working

__all__ = [
    "Batch",
    "Places",
    "Plan",
    "PlannedPages",
    "Stage",
    "VirtualRange",
    "Working",
    "active_plan",
    "complete_plan",
    "kernel_plan",
    "plan_up_to",
    "small_batches",
    "small_plan",
    "working",
]
