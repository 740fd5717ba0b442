"""One writer per format, fed with records."""
