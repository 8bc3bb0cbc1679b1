"""Refinement as a service: the queue, the web, the workers and what watches them."""
