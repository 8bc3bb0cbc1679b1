"""Typed configuration and hardware profiles. Free of torch."""
