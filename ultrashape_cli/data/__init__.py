"""The on-disk dataset and the steps that make it."""
