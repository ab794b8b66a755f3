"""The command line: one file for each verb. Whatever it does is a public call of the library."""

from .main import main

__all__ = ["main"]
