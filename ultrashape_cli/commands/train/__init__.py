"""`ushape train`: preflight and modes, the worker of several processes, `verb` on top."""
