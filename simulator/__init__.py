"""The other side: a believable Windows machine that any debugger can attach to."""
