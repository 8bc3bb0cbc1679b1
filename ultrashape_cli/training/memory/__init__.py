"""What trains, where weights and optimizer live, and what a step will need."""
