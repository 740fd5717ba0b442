"""Whether the model runs in processes of a Ray cluster: what the options say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_vlmeval.errors import VlmEvalError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A Ray cluster; `address` is RAY_ADDRESS, None to start one on this machine.

    `replicas` is how many processes answer, None for as many as there is room for.
    """

    address: str | None
    replicas: int | None


def choose_cluster(
    values: Mapping[str, Any], address: str | None
) -> ClusterSettings | None:
    """Return the cluster, None without one; `VlmEvalError` for what excludes it."""
    if values["engine"] != "ray":
        if values["replicas"] is not None:
            raise VlmEvalError(
                f"--vlm-replicas={values['replicas']} is about the processes of a Ray "
                "cluster. Give --vlm-engine=ray too, or leave it out: without Ray "
                "each of xdist's workers (-n) has a replica."
            )
        return None
    for name in ("serve", "judge-serve"):
        if values[name]:
            raise VlmEvalError(
                f"--vlm-{name} and --vlm-engine=ray exclude each other: a server of "
                "this run is reached from this machine alone. Start it beforehand and "
                f"give its URL by --vlm-{name.replace('serve', 'api-base')}, or leave "
                "--vlm-engine out."
            )
    replicas = values["replicas"]
    return ClusterSettings(
        address=address, replicas=None if replicas in (None, "auto") else replicas
    )


def parse_replicas(text: str) -> int | str:
    """Read a whole number from 1 on, or auto."""
    if text == "auto":
        return text
    value = int(text)
    if value < 1:
        raise ValueError
    return value
