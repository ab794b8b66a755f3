"""Honest timings: ratios against named rivals in the same run."""
