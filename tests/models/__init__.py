"""Clients of what answers."""
