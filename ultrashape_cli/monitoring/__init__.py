"""What a run writes about itself, and the live view of it."""
