"""`ushape data`: a dataset as a few large files, and their way elsewhere."""
