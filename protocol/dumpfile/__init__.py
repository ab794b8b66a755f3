"""Dump files: headers, where each page lies, and the plan of a file to be written. Nothing here opens a file.

Reading begins with `layout.parse_layout`, writing with `plan.plan_complete` and `plan.plan_bitmap`.
"""

from .exception import ExceptionRecord
from .header import DumpAttributes, DumpHeader, DumpType, encode_header, parse_header
from .index import Extent, PageIndex
from .layout import DumpLayout, ReadFile, parse_layout
from .plan import DumpPlan, plan_bitmap, plan_complete
from .secondary import SecondaryBlob

__all__ = [
    "DumpAttributes",
    "DumpHeader",
    "DumpLayout",
    "DumpPlan",
    "DumpType",
    "ExceptionRecord",
    "Extent",
    "PageIndex",
    "ReadFile",
    "SecondaryBlob",
    "encode_header",
    "parse_header",
    "parse_layout",
    "plan_bitmap",
    "plan_complete",
]
