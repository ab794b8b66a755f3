"""The contracts: every layout that Microsoft fixed, and every rule of the conversation. No I/O, no clock."""
