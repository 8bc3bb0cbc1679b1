"""`ushape serve`: the service, its options, its tokens, and `verb` that registers them."""
