"""What runs beside ms-vlmeval."""
