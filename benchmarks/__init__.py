"""The benchmark suite: one module per family of datasets."""
