"""Runs in the Python environment that has torch; imports nothing of the project."""
