"""Repositories of hubs as tables: which files are meant, downloaded, and known by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.datasets import own_hub
from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.own import describe_own
from pytest_vlmeval.datasets.own_hub import choose_split, splits_of
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Hub
from pytest_vlmeval.sandbox.environment import HUB
from pytest_vlmeval.settings.option import (
    dataset_name,
    is_repository,
    read_repository,
    table_place,
)
from tests.support.hub_files import json_lines, parquet
from tests.support.hub_server import COMMIT, HubServer
from tests.support.own_tables import digest
from tests.support.run_fixtures import environment_with
from tests.support.sandbox_tables import draw, prepare
from tests.support.video_sets import hub_environment as hub_environment
from tests.support.video_sets import write_files

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

Hubs = Callable[..., FileAccess]
IMAGES = [draw(seed) for seed in (1, 2)]


def shard(number: int, of: int = 2, split: str = "test") -> tuple[str, bytes]:
    """Give a file of a split with one row."""
    row = {
        "question": f"<q{number}>?",
        "answer": "B",
        "choices": ["red", "blue"],
        "image": {"bytes": IMAGES[number], "path": None},
    }
    return f"data/{split}-{number:05}-of-{of:05}.parquet", parquet([row], "image")


REPOSITORY = {
    **dict([shard(0), shard(1), shard(0, 1, "train")]),
    "README.md": b"# Set",
    "dataset_infos.json": b"{}",
}


@pytest.fixture
def files(
    hub_environment: HubServer, tmp_path: Path, sandbox_environment: SandboxEnvironment
) -> Hubs:
    """Return what gives a user's way to the hubs, Hugging Face by its client."""
    hub_environment.repositories["org/set"] = REPOSITORY

    def make(**changes: Any) -> FileAccess:
        access = FileAccess(
            data_root=tmp_path / "LMUData",
            cache_dir=tmp_path / "cache",
            digest=digest,
            client=lambda hub: sandbox_environment.python,
            hubs=[
                Hub(
                    kind="huggingface",
                    endpoint=hub_environment.url,
                    cache=tmp_path / "hf",
                ),
                Hub(
                    kind="modelscope",
                    endpoint=hub_environment.url,
                    cache=tmp_path / "ms",
                ),
            ],
        )
        return access._replace(**changes)

    return make


def test_what_names_a_repository() -> None:
    place = "hf:org/my.set@refs/pr/1:en/test"
    assert is_repository(place)
    assert read_repository(place) == (
        "huggingface",
        "org/my.set",
        "refs/pr/1",
        "en/test",
    )
    assert read_repository("ms:org/set") == ("modelscope", "org/set", "", "")
    assert table_place(place, Path("/here")) == place
    names = {
        "hf:org/set": "set",
        "hf:org/set@v1.0": "set",
        "ms:org/my.set:test": "my.set-test",
        place: "my.set-en-test",
    }
    assert {each: dataset_name(each) for each in names} == names


@pytest.mark.parametrize("place", ["hf:set", "hf:org/set:", "ms:a/b/c", "hf:"])
def test_a_name_that_is_no_repository(place: str, files: Hubs) -> None:
    with pytest.raises(VlmEvalError) as caught:
        describe_own(place, files())
    hub = place[:3]
    assert str(caught.value) == (
        f"{place} names no repository. Give {hub}OWNER/NAME, {hub}OWNER/NAME:SPLIT or "
        f"{hub}OWNER/NAME@REVISION:SPLIT."
    )


def test_files_belong_to_splits() -> None:
    paths = [
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
        "data/train-00000-of-00001-0123456789abcdef.parquet",
        "en/dev.csv",
        "default/val/0000.parquet",
        "a.json",
        "a.jsonl.gz",
        "README.md",
        ".hidden.json",
        "dataset_infos.json",
    ]
    assert splits_of(paths) == {
        "test": paths[:2],
        "train": [paths[2]],
        "en/dev": ["en/dev.csv"],
        "default/val": ["default/val/0000.parquet"],
        "a.json": ["a.json"],
        "a.jsonl": ["a.jsonl.gz"],
    }


@pytest.mark.parametrize(
    ("place", "paths", "text"),
    [
        (
            "hf:org/set@v1",
            ["test.csv", "train.csv"],
            "the repository has several tables: test, train. Name one, as "
            "hf:org/set@v1:test.",
        ),
        (
            "hf:org/set:test",
            ["en/test.csv", "de/test.csv"],
            "the repository has several tables: de/test, en/test. Name one, as "
            "hf:org/set:de/test.",
        ),
        (
            "hf:org/set:tset",
            ["test.csv"],
            "the repository has no table 'tset'. Did you mean test? It has test.",
        ),
        (
            "hf:org/set",
            ["README.md", "x.zip"],
            "the repository has no table (.tsv, .csv, .jsonl, .json, each also with "
            ".gz, or .parquet). Its files are README.md, x.zip.",
        ),
    ],
)
def test_a_split_that_is_not_known(place: str, paths: list[str], text: str) -> None:
    with pytest.raises(VlmEvalError) as caught:
        choose_split(place, read_repository(place), dict.fromkeys(paths, 1))
    assert str(caught.value) == f"{place}: {text}"
    if "as hf:" in text:
        advised = text.partition(", as ")[2].removesuffix(".")
        assert choose_split(advised, read_repository(advised), dict.fromkeys(paths, 1))


def test_a_split_of_a_repository(
    files: Hubs,
    hub_environment: HubServer,
    tmp_path: Path,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    place = "hf:org/set:test"
    info = describe_own(place, files(announce=said.append))
    assert said == [
        f"{place}: options from 'choices'",
    ]
    assert (info.name, info.kind, info.confined) == (
        "set-test",
        "multiple_choice",
        True,
    )
    assert info.source == "Hugging Face org/set"
    assert info.revision == f"org/set@{COMMIT}"
    assert sorted(hub_environment.downloads()) == sorted([shard(0)[0], shard(1)[0]])
    prepared = prepare(info, sandbox, tmp_path / "cache")
    assert prepared.version == info.revision
    samples = read_samples(prepared)
    assert [sample.error for sample in samples] == [None, None]
    assert [sample.index for sample in samples] == ["1", "2"]
    shown = [part.media for each in samples for part in each.prompt[0] if part.media]
    assert len(set(shown)) == 2
    # What is there is not downloaded again; offline nothing is asked.
    with monkeypatch.context() as patch:
        patch.setattr(own_hub, "FRESH_S", 0)
        hub_environment.requests.clear()
        assert describe_own(place, files()).checksum == info.checksum
    assert hub_environment.requests
    assert not hub_environment.downloads()
    hub_environment.requests.clear()
    assert describe_own(place, files(offline=True)) == info
    assert not hub_environment.requests
    # Which files there are is known, though not all are here.
    with pytest.raises(VlmEvalError, match="has several tables: test, train"):
        describe_own("hf:org/set", files(offline=True))
    with pytest.raises(VlmEvalError) as caught:
        describe_own("hf:org/set:train", files(offline=True))
    assert str(caught.value).startswith(
        "hf:org/set:train: --vlm-offline is set, and the repository org/set is not "
        "complete in the cache of Hugging Face, "
    )
    # While the hub is away, what was downloaded is used, which is said; just after it
    # was asked, it is not asked again.
    hub_environment.status = 500
    assert describe_own(place, files()) == info
    monkeypatch.setattr(own_hub, "FRESH_S", 0)
    told: list[str] = []
    assert describe_own(place, files(announce=told.append)) == info
    assert told[0].startswith(f"{place}: the repository org/set cannot be downloaded")
    assert told[0].endswith("; what is on disk is used")


def test_a_repository_with_images_beside_its_table(
    files: Hubs, hub_environment: HubServer, tmp_path: Path, sandbox: Sandbox
) -> None:
    rows = [
        {"file_name": f"{n}.png", "question": f"<{n}>?", "answer": "x"} for n in (0, 1)
    ]
    hub_environment.repositories["org/set"] = {
        "test/metadata.jsonl": json_lines(rows),
        **{f"test/{n}.png": IMAGES[n] for n in (0, 1)},
        "test/else.png": IMAGES[0],
    }
    info = describe_own("hf:org/set", files())
    assert sorted(hub_environment.downloads()) == [
        "test/0.png",
        "test/1.png",
        "test/metadata.jsonl",
    ]
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]
    assert describe_own("hf:org/set", files(offline=True)) == info


def test_a_repository_opens_no_file_outside_of_it(
    files: Hubs, hub_environment: HubServer, tmp_path: Path
) -> None:
    (tmp_path / "private.png").write_bytes(IMAGES[0])
    row = {"image": str(tmp_path / "private.png"), "question": "W?", "answer": "x"}
    hub_environment.repositories["org/set"] = {"test.jsonl": json_lines([row])}
    with pytest.raises(VlmEvalError) as caught:
        describe_own("hf:org/set", files())
    assert "private.png lies outside of the table's folder" in str(caught.value)


def test_what_is_larger_than_allowed_is_not_downloaded(
    files: Hubs, hub_environment: HubServer
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        describe_own("hf:org/set:test", files(max_gb=1e-9))
    text = str(caught.value)
    assert text.startswith("hf:org/set:test has ")
    assert text.endswith(
        " to download, more than --vlm-download-max-gb=1e-09. Name a smaller split, or "
        "allow more with that option. Nothing was downloaded."
    )
    assert not hub_environment.downloads()
    assert describe_own("hf:org/set:test", files(max_gb=1)).kind == "multiple_choice"


def test_a_split_that_lacks_a_file(files: Hubs, hub_environment: HubServer) -> None:
    name, data = shard(0)
    hub_environment.repositories["org/set"] = {name: data}
    with pytest.raises(VlmEvalError) as caught:
        describe_own("hf:org/set", files())
    assert str(caught.value) == (
        f"hf:org/set: by its name, {name} is one of 2 files, and the repository has 1 "
        "of them. Name another split or revision."
    )


def test_a_repository_that_cannot_be_had(
    files: Hubs, hub_environment: HubServer, tmp_path: Path
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        describe_own("hf:org/other", files())
    text = str(caught.value)
    assert text.startswith(
        "hf:org/other: the repository org/other cannot be downloaded from Hugging "
        f"Face, {hub_environment.url} ("
    )
    assert text.endswith(
        "). HF_ENDPOINT takes another address of the hub, --vlm-data=ms:org/other "
        "ModelScope instead; --vlm-data-mirror=FOLDER takes its files from "
        "FOLDER/org/other; with --vlm-offline what is on disk is used."
    )
    write_files(tmp_path / "mirror/org/other", REPOSITORY)
    mirrored = files(mirror=str(tmp_path / "mirror"))
    info = describe_own("hf:org/other:test", mirrored)
    assert (info.name, info.revision) == ("other-test", "org/other")


@pytest.mark.addons
def test_a_repository_of_modelscope(
    files: Hubs, hub_environment: HubServer, tmp_path: Path, sandbox: Sandbox
) -> None:
    python = environment_with(HUB).python
    info = describe_own("ms:org/set:test", files(client=lambda hub: python))
    assert (info.source, info.revision) == ("ModelScope org/set", "org/set@master")
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]
    asked = [path for _, path in hub_environment.requests if "FilePath" in path]
    assert len(asked) == 2
    again = describe_own(
        "ms:org/set:test", files(client=lambda hub: python, offline=True)
    )
    assert again.checksum == info.checksum
