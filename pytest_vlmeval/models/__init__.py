"""The model clients a run can ask: an endpoint, or the demo model in this process."""
