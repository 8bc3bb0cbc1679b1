"""`ushape weights`: a file per command, their options, and `verb` that registers them."""
