"""What was on the wire: recorded, read back, and decoded. The one place that imports scapy, and only when it reads."""

from .frames import CaptureError, Frame, Medium
from .reader import read_frames
from .writer import CaptureWriter

__all__ = ["CaptureError", "CaptureWriter", "Frame", "Medium", "read_frames"]
