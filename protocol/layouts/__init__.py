"""Structures that Microsoft fixed and that lie in a target's memory or in the version packet."""
