"""A Ray cluster of several nodes on one machine, each of which can be killed."""

from __future__ import annotations

from typing import Any

# The smallest store that Ray takes, in bytes.
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Nodes:
    """A cluster whose head takes no replica, and as many nodes as a test wants."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self._nodes: list[Any] = []

    def have(self, count: int) -> None:
        """Add or remove nodes until there are so many."""
        while len(self._nodes) > count:
            self._cluster.remove_node(self._nodes.pop())
        while len(self._nodes) < count:
            self.add()
        # Until the head knows of it.
        self._cluster.wait_for_nodes()

    def add(self) -> None:
        """Start a node."""
        self._nodes.append(self._cluster.add_node(**NODE))

    def kill_first(self) -> None:
        """Kill the oldest node with all its processes."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def close(self) -> None:
        """End everything."""
        self._cluster.shutdown()
