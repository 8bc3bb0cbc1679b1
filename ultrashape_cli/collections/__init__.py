"""Collections of meshes by others: what they hold, under which licence, and how it is fetched."""
