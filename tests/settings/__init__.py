"""Options and task files."""
