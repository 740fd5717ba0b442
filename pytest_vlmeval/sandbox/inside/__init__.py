"""What runs inside the sandbox's Python; nothing here is imported by the plugin."""
