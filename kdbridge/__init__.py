"""Take over a stopped Windows machine, read it, bring home a dump."""
