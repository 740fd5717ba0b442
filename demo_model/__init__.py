"""Draws the demo's data, trains the demo model, and writes both; not in the wheel."""
