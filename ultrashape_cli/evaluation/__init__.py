"""How good refined meshes are: scores, statistics, reports."""
