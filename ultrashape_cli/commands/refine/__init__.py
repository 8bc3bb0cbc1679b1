"""`ushape refine`: options and request at the bottom, a file per mode, `verb` on top."""
