"""What is trained, and its loss: the flow of the DiT, or the VAE."""
