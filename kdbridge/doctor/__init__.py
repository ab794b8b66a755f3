"""The link doctor: listens to a line, probes it gently, and says what is wrong with it, with evidence and a cure.

    listening, probing ─► Overheard (bytes and times) ─► find_signs ─► Signs ─► judge ─► Verdict

All but listening and probing is pure: what explains a silence (`kdbridge.silence`) uses the same signs and verdicts.
"""
