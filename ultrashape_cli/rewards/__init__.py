"""What a mesh is worth that no loss sees: rewards, groups, and generations kept with them."""
