"""Checksums of the weights of a model that runs here, computed once per file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# What a checkpoint's answers depend on: weights, configuration, tokenizer, template.
SUFFIXES = frozenset(
    ".safetensors .bin .pt .pth .ckpt .gguf .onnx .npy .npz .json .model .txt .jinja "
    ".py .tiktoken".split()
)
CHUNK = 1 << 22


def describe_checkpoint(
    path: str | None, cache: Path | None, hub_cache: Path | None
) -> dict[str, str]:
    """Return the evidence of a checkpoint: a checksum, or the commit on its hub.

    `path` is a folder, or a name on Hugging Face, whose `hub_cache` says which commit
    is used; nothing is known of what a class of ms-vlmeval finds by itself. `cache` is
    the file that keeps checksums.
    """
    if not path:
        return {}
    folder = Path(path).expanduser()
    if folder.is_dir():
        return {"weights": checksum_files(list(_files(folder)), folder, cache)}
    commit = _hub_commit(path, hub_cache) if hub_cache else ""
    return {"revision": commit} if commit else {}


def checksum_files(files: Sequence[Path], folder: Path, cache: Path | None) -> str:
    """Return one checksum of the files below a folder that a model is made of.

    Files of the same path, size and time of change are read once, ever.
    """
    known = {} if cache is None else _read(cache)
    fresh: dict[str, str] = {}
    whole = hashlib.sha256()
    for file in files:
        status = file.stat()
        key = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        fresh[key] = known.get(key) or _checksum(file)
        whole.update(f"{file.relative_to(folder)} {fresh[key]}\n".encode())
    if cache is not None and not fresh.keys() <= known.keys():
        _write(cache, known | fresh)
    return f"sha256:{whole.hexdigest()[:32]}"


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in SUFFIXES and not hidden and file.is_file():
            yield file


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _hub_commit(name: str, cache: Path) -> str:
    """Return the commit of a Hugging Face repository in this machine's cache."""
    reference = cache / f"models--{name.replace('/', '--')}" / "refs" / "main"
    try:
        return reference.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _read(cache: Path) -> dict[str, str]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(cache: Path, found: Mapping[str, str]) -> None:
    """Keep checksums; a cache that cannot be written only costs time."""
    part = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(cache)
    except OSError:
        part.unlink(missing_ok=True)
