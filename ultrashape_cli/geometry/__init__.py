"""Arrays in, arrays out: meshes, distances, samples, isosurfaces. No config, no printing."""
