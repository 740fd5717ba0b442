"""Which GPUs this machine has, asked of its driver; nothing of torch is loaded."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Sequence

QUERY_LIMIT_S = 30.0


def find_devices(visible: str | None) -> tuple[str, ...]:
    """Give what CUDA_VISIBLE_DEVICES calls each GPU; none where there is no driver.

    `visible` is that variable's own value, None if it is unset.
    """
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listed = subprocess.run(
            [program, "--query-gpu=index", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=QUERY_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(listed.stdout.split()) if listed.returncode == 0 else ()


def choose_devices(replicas: int, visible: str | None) -> Sequence[str | None]:
    """Give each replica its GPU, None for what it finds by itself.

    One replica alone takes all there is. Without any GPU each runs on the processor.
    Raises `VlmEvalError` for more replicas than GPUs.
    """
    if replicas == 1:
        return [None]
    devices = find_devices(visible)
    if not devices:
        return [None] * replicas
    if replicas > len(devices):
        raise VlmEvalError(
            f"--vlm-serve-replicas={replicas}: there are {len(devices)} GPUs here "
            f"({', '.join(devices)}), and each replica takes one. Give a smaller "
            "number, or more devices by CUDA_VISIBLE_DEVICES."
        )
    return devices[:replicas]
