"""Small video datasets as their hubs have them, and one user's way to them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.prepare import prepare_dataset, read_samples, show_videos
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, Hub, PreparedDataset, Sample, parts_of
from pytest_vlmeval.sandbox.environment import VIDEO
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.hub_server import HubServer
from tests.support.run_fixtures import environment_with
from tests.support.video_files import colours, write_video

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

VIDEO_MME = "lmms-lab/Video-MME"
MMBENCH_VIDEO = "opencompass/MMBench-Video"
FRAMES = 12
FPS = 4
SUBTITLES = "1\n00:00:00,000 --> 00:00:01,500\nHello there\n"


def archive(files: Mapping[str, bytes]) -> bytes:
    """Pack files into a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return out.getvalue()


def videos(*names: str) -> dict[str, bytes]:
    """Give a video for each name, all different."""
    return {
        name: write_video(colours(FRAMES, seed), FPS)
        for seed, name in enumerate(names, start=1)
    }


def video_mme(films: Mapping[str, bytes]) -> dict[str, bytes]:
    """Give Video-MME's repository: two questions about each video."""
    # Here, as every session of this checkout reads this module.
    import pyarrow as pa
    import pyarrow.parquet as pq

    questions = [
        {
            "videoID": name,
            "duration": "short",
            "domain": "Knowledge",
            "sub_category": "Law",
            "task_type": "OCR Problems",
            "question": f"Question {number}?",
            "options": ["A. red.", "B. blue."],
            "answer": "AB"[number % 2],
        }
        for name in films
        for number in range(2)
    ]
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(questions), table)
    packed = {f"data/{name}.mp4": data for name, data in films.items()}
    subtitles = {f"subtitle/{name}.srt": SUBTITLES.encode() for name in films}
    return {
        "videomme/test-00000-of-00001.parquet": table.getvalue(),
        "videos_chunked_01.zip": archive(packed),
        "subtitle.zip": archive(subtitles),
    }


def mmbench_video(films: object) -> dict[str, bytes]:
    """Give MMBench-Video's repository: its table, and pickled videos."""
    rows = [
        (
            "index",
            "video",
            "video_path",
            "video_type",
            "question",
            "answer",
            "dimensions",
        ),
        ("0", "red", "./video/red.mp4", "shorts", "What?", "A box", "['OCR']"),
        ("1", "red", "./video/red.mp4", "shorts", "Where?", "Left", "['Counting']"),
        ("2", "blue", "./video/blue.mp4", "shorts", "Why?", "So", "['Video Topic']"),
    ]
    table = "".join("\t".join(row) + "\n" for row in rows)
    return {
        "MMBench-Video.tsv": table.encode(),
        "video_pkl/video_0.pkl": pickle.dumps(films),
    }


@dataclass(slots=True, kw_only=True)
class VideoUser:
    """One user's folders, a hub, and what prepares video datasets from it."""

    hub: HubServer
    folder: Path
    sandbox: Sandbox
    catalog: Mapping[str, DatasetInfo]
    lines: list[str] = field(default_factory=list)

    def prepare(
        self,
        name: str,
        *,
        nframe: int | None = None,
        fps: float | None = None,
        video_url: bool = False,
        modified: bool = False,
        offline: bool = False,
        mirror: Path | None = None,
        first: str = "huggingface",
        sandbox: Sandbox | None = None,
    ) -> PreparedDataset:
        """Prepare a dataset; `first` names the preferred hub."""
        hubs = [
            Hub(kind="huggingface", endpoint=self.hub.url, cache=self.folder / "hf"),
            Hub(kind="modelscope", endpoint=self.hub.url, cache=self.folder / "ms"),
        ]
        return prepare_dataset(
            show_videos(self.catalog[name], nframe, fps),
            FileAccess(
                data_root=self.folder / "LMUData",
                cache_dir=self.folder / "cache",
                allow_modified=modified,
                offline=offline,
                mirror=str(mirror) if mirror else None,
                hubs=sorted(hubs, key=lambda hub: hub.kind != first),
                announce=self.lines.append,
            ),
            sandbox=sandbox or self.sandbox,
            sandbox_fingerprint="tests",
            video_url=video_url,
        )

    def fail(self, name: str, **settings: Any) -> str:
        """Give the text of the error that preparing ends with."""
        with pytest.raises(VlmEvalError) as caught:
            self.prepare(name, **settings)
        return str(caught.value)

    def snapshot(self, repository: str) -> Path:
        """Give the folder of a repository in the cache of Hugging Face's client."""
        name = f"datasets--{repository.replace('/', '--')}"
        (folder,) = (self.folder / "hf" / name / "snapshots").iterdir()
        return folder


@pytest.fixture(scope="session")
def video_environment() -> SandboxEnvironment:
    """Give the sandbox environment that has the packages for videos."""
    return environment_with(VIDEO)


@pytest.fixture(scope="session")
def video_sandbox(video_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox for videos, ended after the last test."""
    sandbox = Sandbox(video_environment.python)
    yield sandbox
    sandbox.close()


@pytest.fixture
def hub_environment(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> HubServer:
    """Give a hub that the clients of both know by the environment."""
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub_server.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return hub_server


@pytest.fixture
def user(
    hub_environment: HubServer,
    tmp_path: Path,
    run_cache: Path,
    video_environment: SandboxEnvironment,
    video_sandbox: Sandbox,
) -> VideoUser:
    """Give a user with empty folders."""
    return VideoUser(
        hub=hub_environment,
        folder=tmp_path,
        sandbox=video_sandbox,
        catalog=load_catalog(video_environment, run_cache),
    )


def shown(prepared: PreparedDataset, sample: Sample) -> list[tuple[str, Any]]:
    """Give a prompt's parts: texts, and the bytes of images and videos."""
    media = prepared.folder / "media"
    return [
        (
            part.kind,
            part.text if part.kind == "text" else (media / part.media).read_bytes(),
        )
        for part in parts_of(sample.prompt)
    ]


def prompts(prepared: PreparedDataset) -> list[list[tuple[str, Any]]]:
    """Give every prompt of a dataset, in its order."""
    return [shown(prepared, sample) for sample in read_samples(prepared)]


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def as_json(value: object) -> bytes:
    """Write a file that a hub has as JSON."""
    return json.dumps(value).encode()
