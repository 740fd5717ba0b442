"""From names to samples on disk."""
