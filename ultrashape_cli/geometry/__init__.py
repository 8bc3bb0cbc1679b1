"""Arrays in, arrays out: distances, rays, samples, isosurfaces. No files, config or printing."""
