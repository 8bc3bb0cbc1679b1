"""Checks of `ushape doctor`, each with a time limit of its own."""
