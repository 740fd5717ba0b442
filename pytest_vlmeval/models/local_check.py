"""What a local model needs, looked at before anything is loaded."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.devices import find_devices
from pytest_vlmeval.models.local_names import find_class, find_model, read_models

if TYPE_CHECKING:
    from pytest_vlmeval.local_settings import LocalModel
    from pytest_vlmeval.models.local_names import ModelClass

PROBE = (
    "import importlib.util as u\n"
    "print(*(n for n in ('torch', 'transformers', 'PIL') if u.find_spec(n) is None))"
)
PROBE_LIMIT_S = 60
# Weights on disk, and what computing with them takes at the least.
ROOM = 1.1


def check_model(model: str, local: LocalModel) -> None:
    """Raise `VlmEvalError` for what would only show after minutes of loading."""
    python = _python(local)
    try:
        probe = subprocess.run(
            [python, "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise VlmEvalError(
            f"--vlm-local-python={python} is not a working Python: {error}"
        ) from None
    missing = probe.stdout.split()
    if missing:
        raise VlmEvalError(
            f"--vlm-backend=local needs {', '.join(missing)}, not installed in the "
            f"environment of {python}. Install it there: "
            f"{shlex.quote(str(python))} -m pip install 'pytest-vlmeval[vlmeval]', or "
            "give the Python of another environment by --vlm-local-python."
        )
    order_of(model, local)
    _check_memory(local, _check_devices(local))


def order_of(model: str, local: LocalModel) -> tuple[dict[str, Any], Path, str | None]:
    """Return what the helper is to load, its interpreter, and its device.

    A name that ms-vlmeval has a class for takes that class, any other is the checkpoint
    in the folder that is given. Raises `VlmEvalError` where there is neither.
    """
    python = _python(local)
    package = _package(python)
    device = _check_devices(local)
    path = local.path
    known = _known(model, local, package)
    if known is not None:
        arguments = {**known.arguments, **local.arguments}
        if path is not None:
            arguments["model_path"] = str(Path(path).expanduser())
        order = {"class_name": known.class_name, "module": known.module}
        return {**order, "arguments": arguments}, python, device
    if path is None or local.class_name:
        if package is not None:
            find_model(model, package)
        raise VlmEvalError(
            f"--vlm-model={model}: give the folder of its checkpoint by "
            "--vlm-model-path=DIR, or a name of `pytest --vlm-list-models`, for which "
            "ms-vlmeval has to be installed in the same environment."
        )
    folder = Path(path).expanduser().absolute()
    if not (folder / "config.json").is_file():
        raise VlmEvalError(
            f"--vlm-model-path={path} is not the folder of a checkpoint: there is no "
            "config.json in it. Give one that transformers can load."
        )
    arguments = dict(local.arguments)
    return (
        {"class_name": "", "path": str(folder), "arguments": arguments},
        python,
        device,
    )


def _known(model: str, local: LocalModel, package: Path | None) -> ModelClass | None:
    """Return what ms-vlmeval loads the model by; None for a checkpoint by itself."""
    if package is None:
        return None
    if not local.class_name:
        return read_models(package).get(model)
    known = read_models(package).get(model)
    if known is not None and known.class_name == local.class_name:
        return known
    return find_class(local.class_name, package)


def _python(local: LocalModel) -> Path:
    return Path(sys.executable) if local.python is None else local.python.expanduser()


def _package(python: Path) -> Path | None:
    """Return the folder of ms-vlmeval in the environment of this interpreter."""
    found = python.parent.parent.glob("lib/python3*/site-packages/vlmeval/config.py")
    return next((path.parent for path in found), None)


def _check_devices(local: LocalModel) -> str | None:
    """Return the GPU of this process, None for what it finds."""
    if local.replicas == 1:
        return None
    devices = find_devices(local.visible_devices)
    if devices and local.replicas > len(devices):
        raise VlmEvalError(
            f"-n {local.replicas} makes {local.replicas} copies of the model, each on "
            f"a GPU of its own, and there are {len(devices)} ({', '.join(devices)}). "
            f"Give -n {len(devices)}, or more devices by CUDA_VISIBLE_DEVICES."
        )
    return devices[local.replica] if devices else None


def _check_memory(local: LocalModel, device: str | None) -> None:
    """Raise where the weights alone are more than there is room for."""
    folder = Path(local.path).expanduser() if local.path else None
    if folder is None or not folder.is_dir():
        return
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free, where = _free_bytes(local, device)
    copies = 1 if find_devices(local.visible_devices) else local.replicas
    if free is not None and weights * ROOM * copies > free:
        raise VlmEvalError(
            f"The weights in {folder} are {weights / 1e9:.1f} GB"
            f"{f', and -n {copies} loads them {copies} times' if copies > 1 else ''}; "
            f"{where} has {free / 1e9:.1f} GB free. Free some, use fewer workers, or "
            "a smaller model."
        )


def _free_bytes(local: LocalModel, device: str | None) -> tuple[float | None, str]:
    """Return how much memory is free, on the GPU if there is one; None: not known."""
    program = shutil.which("nvidia-smi")
    devices = find_devices(local.visible_devices)
    if program is not None and devices:
        query = [program, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        chosen = devices if device is None else (device,)
        query += ["-i", ",".join(chosen)]
        listed = subprocess.run(query, capture_output=True, text=True, check=False)
        numbers = [word for word in listed.stdout.split() if word.isdigit()]
        if not numbers:
            return None, ""
        # nvidia-smi counts MiB.
        return sum(map(float, numbers)) * 2**20, f"GPU {', '.join(chosen)}"
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None, ""
    for line in meminfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024, "this machine"
    return None, ""
