"""The environment of real model servers: ms-swift, transformers, ms-vlmeval's classes.

    python -m tests.support.model_environment    # builds it if need be, prints where

It lies in the user's cache, named by what it holds, so that a clean checkout uses it
again; those of other pins are removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

PINS = Path(__file__).with_name("model_requirements.txt")
# Lets torchvision, which is built for CUDA, be imported beside a torch without it.
FIX = Path(__file__).with_name("cpu_torchvision.py")
# torch first: what it needs beside it differs by platform, so it brings that itself.
STEPS = (
    ["torch"],
    (
        "ms-swift validators portalocker tabulate openpyxl xlsxwriter sty "
        "timeout-decorator python-dotenv latex2sympy2-extended"
    ).split(),
)
# torchvision would bring CUDA's libraries, ms-vlmeval all that any of its models needs.
ALONE = ["torchvision", "qwen-vl-utils", "ms-vlmeval"]


def cache_folder() -> Path:
    """Return where these environments lie."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / "pytest-vlmeval" / "test-models"


def ensure_model_environment() -> Path:
    """Return the folder of the environment, built if it is not there."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    text = f"{sys.version_info[:2]}{PINS.read_text()}{FIX.read_text()}{STEPS}{ALONE}"
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:12]
    with FileLock(root / ".lock"):
        if not (folder / ".ready").exists():
            _build(folder)
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def _build(folder: Path) -> None:
    started = time.monotonic()
    print(f"Building {folder} (2 GB): once, about three minutes", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    pins = _pins(folder)
    names = {line.partition("==")[0].lower().replace("_", "-"): line for line in pins}
    install = [str(python), "-I", "-m", "pip", "install", "--quiet"]
    install += ["--disable-pip-version-check", "--no-input"]
    constraint = ["--constraint", str(folder / "pins.txt")]
    for step in STEPS:
        _run([*install, *constraint, *(names[name] for name in step)])
    _run([*install, "--no-deps", *(names[name] for name in ALONE)])
    packages = next(folder.glob("lib/python*/site-packages"))
    shutil.copy(FIX, packages / "sitecustomize.py")
    (folder / ".ready").touch()
    print(f"Built it in {time.monotonic() - started:.0f} s", flush=True)


def _pins(folder: Path) -> list[str]:
    """Write the pins as constraints, which may not say anything else; return them."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    (folder / "pins.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    return pins


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    print(ensure_model_environment())
