"""Gates: what of a score passes or fails a build, and by what statistics."""
