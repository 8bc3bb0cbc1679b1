"""`ushape doctor`: the checks of a machine, `verb` on top."""
