"""Shapes made on purpose: figurines without downloads, and coarse versions of meshes."""
