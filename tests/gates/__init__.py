"""What passes or fails a build."""
