"""Reference views of a mesh."""
