"""Dump files: headers, where each page lies, and the plan of a file to be written. Nothing here opens a file."""
