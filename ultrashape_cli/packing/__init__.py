"""A dataset as a few large files that can be sent, checked and trained from."""
