"""Coarse mesh and image to refined mesh."""
