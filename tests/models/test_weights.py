"""Checksums of local checkpoints: what they cover, and when files are read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_vlmeval.models.evidence import describe_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / ".git").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("read me")
    (folder / ".git" / "config.json").write_text("{}")
    return folder


def test_weights_configuration_and_names_count_and_notes_do_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    def weights(folder: Path = checkpoint) -> str:
        return describe_checkpoint(str(folder), None, None)["weights"]

    before = weights()
    assert before.startswith("sha256:")
    assert len(before) == len("sha256:") + 32
    (checkpoint / "README.md").write_text("changed")
    (checkpoint / ".git" / "config.json").write_text("changed")
    assert weights() == before
    moved = checkpoint.rename(tmp_path / "moved")
    assert weights(moved) == before
    (moved / "config.json").write_text("{ }")
    other = weights(moved)
    assert other != before
    (moved / "model.safetensors").rename(moved / "other.safetensors")
    assert weights(moved) not in (before, other)


def test_a_file_is_read_once_for_each_size_and_time_of_change(
    checkpoint: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "checksums.json"

    def weights() -> str:
        return describe_checkpoint(str(checkpoint), cache, None)["weights"]

    before = weights()
    file = checkpoint / "model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    # The same size and time: what is known of it holds, without reading it.
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=times)
    assert weights() == before
    os.utime(file, ns=(times[0], times[1] + 1_000_000))
    after = weights()
    assert after != before
    assert len(json.loads(cache.read_text())) == 3
    # A damaged cache only costs time.
    cache.write_text("[not json")
    assert weights() == after
    cache.write_text("[]")
    assert weights() == after


def test_a_name_on_a_hub_is_its_commit(tmp_path: Path) -> None:
    name = "Owner/Model"
    assert describe_checkpoint(name, None, tmp_path) == {}
    references = tmp_path / "models--Owner--Model" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text("abc123\n")
    assert describe_checkpoint(name, None, tmp_path) == {"revision": "abc123"}
    assert describe_checkpoint(name, None, None) == {}
    assert describe_checkpoint(None, None, tmp_path) == {}
