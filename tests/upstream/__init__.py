"""Held against ms-vlmeval itself."""
