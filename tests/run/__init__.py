"""One run: the store, the queue, the engine."""
