"""`ushape import`: collections of meshes to a source manifest, and their files."""
