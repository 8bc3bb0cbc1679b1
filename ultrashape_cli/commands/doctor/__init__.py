"""`ushape doctor`: the checks of a machine, the report of its card, `verb` on top."""
