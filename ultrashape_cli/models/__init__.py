"""The three networks, their parameters and their weights."""
