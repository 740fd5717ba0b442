"""A model whose replicas are Ray actors, on as many nodes as a cluster has."""
