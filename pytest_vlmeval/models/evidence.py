"""Evidence of which model answers: what endpoints say of it, or its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pytest_vlmeval.sandbox.environment import write_held

# What names the weights: where it differs, another model answers. Checksums are of a
# model that runs here, `root` and `parent` are what vLLM, SGLang and LMDeploy were
# started with; the others are those of gateways and registries.
IDENTIFYING = (
    "weights",
    "root",
    "parent",
    "revision",
    "digest",
    "sha256",
    "checksum",
    "hash",
    "fingerprint",
)
# Where the model lies: another place may hold the same weights, moved or copied.
PLACES = ("root", "parent")
# What is made of the weights themselves: where it is the same, so are they. A path or a
# name says nothing of what was written there since.
CHECKSUMS = ("weights", "digest", "sha256", "checksum", "hash")
# What may change while the model stays, and the other way round: vLLM and swift set
# `created` anew at each start or request, OpenAI changes `system_fingerprint` with its
# own configuration. It is shown where answers differ, and stops nothing by itself.
HINTS = ("created", "owned_by", "max_model_len", "size_bytes", "system_fingerprint")
KNOWN = frozenset(IDENTIFYING + HINTS)
LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What `endpoint` said of the model behind it, at a moment in seconds since 1970.

    The keys of `found` are of `KNOWN`; `endpoint` is a URL without a user, or the name
    of a model that runs here.
    """

    endpoint: str
    found: Mapping[str, str]
    at: float


def read_entry(entry: Mapping[str, object]) -> dict[str, str]:
    """Return the evidence in an entry of a server's list of models."""
    found = {
        name: _short(value)
        for name, value in entry.items()
        if name in KNOWN and isinstance(value, str | int | float) and value != ""
    }
    # llama.cpp describes the file it serves here.
    details = entry.get("meta")
    if isinstance(details, dict) and isinstance(details.get("size"), int):
        found["size_bytes"] = str(details["size"])
    return found


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def checksums(evidence: Sequence[Evidence]) -> frozenset[tuple[str, str]]:
    """Return the checksums that every endpoint gives, None if one gives others."""
    found = {
        frozenset((name, each.found[name]) for name in CHECKSUMS if name in each.found)
        for each in evidence
    }
    return found.pop() if len(found) == 1 else frozenset()


def differences(
    then: Sequence[Evidence], now: Sequence[Evidence], names: Iterable[str]
) -> list[str]:
    """Describe what of `names` is new since then, if both say anything.

    Several endpoints may say several things: what none of them said before differs.
    """
    found = []
    for name in names:
        before = sorted({each.found[name] for each in then if name in each.found})
        fresh = [each for each in now if each.found.get(name) not in (None, *before)]
        if before and fresh:
            new = sorted({each.found[name] for each in fresh})
            found.append(
                f"{name} was {_join(name, before)} and is {_join(name, new)}"
                f" at {', '.join(sorted({each.endpoint for each in fresh}))}"
            )
    return found


def _join(name: str, values: Sequence[str]) -> str:
    return " or ".join(map(_as_time, values) if name == "created" else values)


def _as_time(value: str) -> str:
    """Write seconds since 1970 as a time, where it is one."""
    try:
        return f"{datetime.fromtimestamp(float(value), UTC):%d %b %Y, %H:%M:%S UTC}"
    except (ValueError, OverflowError, OSError):
        return value


# What a checkpoint's answers depend on: weights, configuration, tokenizer, template.
SUFFIXES = frozenset(
    ".safetensors .bin .pt .pth .ckpt .gguf .onnx .npy .npz .json .model .txt .jinja "
    ".py .tiktoken".split()
)


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
    if hub_cache is None:
        return {}
    # This machine's cache of a Hugging Face repository says which commit it is.
    reference = hub_cache / f"models--{path.replace('/', '--')}" / "refs" / "main"
    try:
        commit = reference.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return {}
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
        # A cache that cannot be written only costs time.
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_held(cache, json.dumps(known | fresh).encode(), mode=0o644)
    return f"sha256:{whole.hexdigest()[:32]}"


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in SUFFIXES and not hidden and file.is_file():
            yield file


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
