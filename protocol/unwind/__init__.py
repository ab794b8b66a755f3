"""How x64 code tells a debugger the way back: .pdata, UNWIND_INFO, epilogs and calls, as values without memory."""
