"""The way to a Ray cluster, and how many replicas it has room for."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from pytest_vlmeval.settings.groups import ClusterSettings

KNOCK_LIMIT_S = 10.0
LOCAL = "local"  # Ray's own word for a cluster of this machine, to be started


class Placement(NamedTuple):
    """How many replicas there are, and whether each takes a GPU or a processor."""

    replicas: int
    on_gpu: bool


def place_replicas(settings: ClusterSettings, *, needs_gpu: bool) -> Placement:
    """Join the cluster, or start one, and say how the replicas are spread over it.

    Raises `VlmEvalError` where there is no Ray, no cluster, or too little room.
    """
    connect(settings.address)
    import ray

    total = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    on_gpu = needs_gpu and total.get("GPU", 0) >= 1
    room = int(total.get("GPU" if on_gpu else "CPU", 0))
    # Without GPUs one replica uses all processors of its node.
    able = [node for node in nodes if node["Resources"].get("CPU", 0) >= 1]
    wanted = settings.replicas or (room if on_gpu else len(able))
    what = "GPU" if on_gpu else "processor"
    if not 1 <= wanted <= room:
        raise VlmEvalError(
            f"--vlm-replicas={settings.replicas or 'auto'}: each replica takes a "
            f"{what}, and the Ray cluster has {room} on {len(nodes)} "
            f"node{'s' if len(nodes) > 1 else ''}. Give at most as many, or auto, or "
            "add nodes to the cluster."
        )
    return Placement(wanted, on_gpu)


def connect(address: str | None) -> None:
    """Join the cluster at an address, or start one here; once in a process."""
    try:
        import ray
    except ImportError:
        raise VlmEvalError(
            "--vlm-engine=ray needs Ray, which is not installed. Run "
            "pip install 'pytest-vlmeval[ray]', on every node of the cluster."
        ) from None
    if ray.is_initialized():
        return
    try:
        if address is None:
            # What we start tells Ray's makers nothing.
            from ray._common.usage import usage_lib

            usage_lib.set_usage_stats_enabled_via_env_var(False)
        else:
            _knock(address)
        ray.init(
            address=address or LOCAL,
            namespace="vlmeval",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        if address is None:
            raise VlmEvalError(
                f"Ray could not be started on this machine: {reason}. Give the "
                "address of a cluster with RAY_ADDRESS, or leave --vlm-engine out."
            ) from None
        raise VlmEvalError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason}). Give "
            "HOST:PORT of its head, as `ray start --head` prints it, or unset "
            "RAY_ADDRESS to start one on this machine."
        ) from None


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_LIMIT_S).close()
