"""Whole runs, one file for each behaviour that a user sees."""
