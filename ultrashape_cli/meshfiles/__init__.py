"""Mesh files: reading and writing, geometry and the colours of the source."""
