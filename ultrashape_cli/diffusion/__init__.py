"""Rectified flow: the objective and the samplers."""
