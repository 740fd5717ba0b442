"""Which hubs videos come from: what their clients' own environment variables say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.records import Hub


def choose_hubs(variables: Mapping[str, str]) -> tuple[Hub, ...]:
    """Give the hubs, first the one that ms-vlmeval would take.

    `variables` holds the variables by which their own clients are told where to look
    and where to keep what they have.
    """
    # Records cost every session milliseconds; only those with benchmarks have hubs.
    from pytest_vlmeval.records import Hub

    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(variables.get("HF_HOME") or cache / "huggingface")
    named = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE")
    huggingface = Hub(
        kind="huggingface",
        endpoint=variables.get("HF_ENDPOINT") or "https://huggingface.co",
        cache=Path(named or home / "hub").expanduser().absolute(),
    )
    address = variables.get("MODELSCOPE_ENDPOINT") or variables.get("MODELSCOPE_DOMAIN")
    address = address or "https://modelscope.cn"
    root = variables.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope"
    modelscope = Hub(
        kind="modelscope",
        endpoint=address if "://" in address else f"https://{address}",
        cache=Path(root).expanduser().absolute(),
    )
    # As vlmeval/smp/misc.py:14 reads it.
    if variables.get("VLMEVALKIT_USE_MODELSCOPE", "True") in ("1", "True"):
        return modelscope, huggingface
    return huggingface, modelscope
