"""The library: which sandbox a dataset is given, what is to be downloaded for it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.download import size_text
from pytest_vlmeval.datasets.library import (
    DataPlaces,
    DownloadPlan,
    Library,
    PlannedDownload,
    check_plan,
    plan_downloads,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import VLMEVALKIT_COMMIT, DatasetInfo
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.environment import digest_of_all
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.download_calls import table
from tests.support.file_server import FileServer
from tests.support.run_fixtures import CACHE_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

    Open = Callable[..., Library]


@pytest.fixture
def open_library(pytester: pytest.Pytester) -> Iterator[Open]:
    """Give what opens a library with more arguments, closed after the test."""
    opened: list[Library] = []

    def open_library(*arguments: str) -> Library:
        settings = load_from(pytest_sources(pytester.parseconfig(*arguments), {}))
        opened.append(Library(settings, lambda line: None))
        return opened[-1]

    yield open_library
    for library in opened:
        library.close()


def test_ones_own_python_serves_every_dataset(
    open_library: Open, sandbox_environment: SandboxEnvironment
) -> None:
    library = open_library(f"--vlm-sandbox-python={sandbox_environment.python}")
    assert library.sandbox_for("COCO_VAL") is library.sandbox_for("MMStar")
    assert digest_of_all() in library.scorer


def test_vlmevalkits_scoring_wants_the_ms_vlmeval_that_it_is_made_of(
    open_library: Open, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    python = sandbox_environment.python
    library = open_library_of(open_library, python)
    assert library.scorer.endswith(f":vlmevalkit@{VLMEVALKIT_COMMIT[:12]}")
    # An environment in which ms-vlmeval is of another version.
    folder = tmp_path / "other"
    command = [str(python), "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "vlmeval" / "dataset").mkdir(parents=True)
    for name in ("__init__.py", "dataset/__init__.py"):
        (packages / "vlmeval" / name).touch()
    metadata = packages / "ms_vlmeval-0.0.21.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.21\n")
    other = folder / "bin" / "python"
    with pytest.raises(VlmEvalError) as caught:
        _ = open_library_of(open_library, other).scorer
    assert str(caught.value) == (
        "--vlm-scoring=vlmevalkit is known for ms-vlmeval 0.0.20 only, and "
        f"{other} has 0.0.21. Leave out --vlm-sandbox-python, install that version "
        "there, or give --vlm-scoring=published."
    )
    published = open_library(f"--vlm-sandbox-python={other}")
    assert published.scorer.endswith(":default")


def open_library_of(open_library: Open, python: Path) -> Library:
    """Open a library that scores as VLMEvalKit does, in an environment."""
    return open_library(f"--vlm-sandbox-python={python}", "--vlm-scoring=vlmevalkit")


@pytest.mark.addons
def test_a_dataset_with_an_add_on_has_a_sandbox_of_its_own(
    open_library: Open,
) -> None:
    library = open_library(f"--vlm-cache-dir={CACHE_DIR}")
    light, captions = library.sandbox_for("MMStar"), library.sandbox_for("COCO_VAL")
    assert light is library.sandbox_for("DemoChoice")
    assert captions is not light
    assert describe_sandbox(captions) == describe_sandbox(light)


def infos(server: FileServer, **sizes: int | None) -> list[DatasetInfo]:
    """Give datasets whose files the server has, unless their size is None."""
    for name, size in sizes.items():
        if size is not None:
            server.files[f"{name}.tsv"] = b"x" * size
    return [replace(table(f"{server.url}/{name}.tsv"), name=name) for name in sizes]


def test_sizes_are_asked_for_all_at_once(
    file_server: FileServer, tmp_path: Path
) -> None:
    found = infos(file_server, Small=10, Missing=None, Large=2_000_000)
    plan = plan_downloads(found, DataPlaces(data_root=tmp_path))
    assert plan == DownloadPlan(
        (
            PlannedDownload("Large", f"{file_server.url}/Large.tsv", 2_000_000),
            PlannedDownload("Small", f"{file_server.url}/Small.tsv", 10),
            PlannedDownload("Missing", f"{file_server.url}/Missing.tsv", None),
        )
    )
    assert plan.known_bytes == 2_000_010
    assert sorted(file_server.asked("HEAD")) == [
        "/Large.tsv",
        "/Missing.tsv",
        "/Small.tsv",
    ]
    assert not file_server.asked()
    assert plan.summary() == ("to download: 2 datasets, 2 MB; of unknown size: Missing")


def test_what_is_there_or_has_no_address_is_left_out(
    file_server: FileServer, tmp_path: Path
) -> None:
    there, missing = infos(file_server, There=10, Absent=10)
    (tmp_path / "There.tsv").touch()
    own = replace(missing, path=tmp_path / "Own.tsv")
    hub = replace(missing, url=None)
    plan = plan_downloads([there, own, hub], DataPlaces(data_root=tmp_path))
    assert not plan.downloads
    plan = plan_downloads([missing], DataPlaces(data_root=tmp_path, offline=True))
    assert not plan.downloads
    assert not file_server.requests


def test_a_mirror_is_asked_instead(file_server: FileServer, tmp_path: Path) -> None:
    info = replace(table("https://host.invalid/Table.tsv"))
    file_server.files["copies/Table.tsv"] = b"12345"
    mirror = f"{file_server.url}/copies"
    plan = plan_downloads([info], DataPlaces(data_root=tmp_path, mirror=mirror))
    assert plan.known_bytes == 5
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "Table.tsv").write_bytes(b"123")
    plan = plan_downloads(
        [info], DataPlaces(data_root=tmp_path, mirror=str(folder), offline=True)
    )
    assert plan.known_bytes == 3


def test_a_slow_server_makes_a_size_unknown(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.head_wait_s = 20.0
    start = time.monotonic()
    plan = plan_downloads(
        infos(file_server, Slow=10), DataPlaces(tmp_path), deadline_s=0.3
    )
    assert time.monotonic() - start < 15
    assert plan.summary() == "to download: of unknown size: Slow"


def test_too_much_is_refused_with_all_sizes() -> None:
    plan = DownloadPlan(
        (
            PlannedDownload("Large", "", 19_500_000_000),
            PlannedDownload("Small", "", 700_000_000),
            PlannedDownload("Else", "", None),
        )
    )
    check_plan(plan, 20.2)
    with pytest.raises(VlmEvalError) as caught:
        check_plan(plan, 20)
    assert str(caught.value) == (
        "The selected datasets have 20.2 GB to download, more than "
        "--vlm-download-max-gb=20:\n"
        "   19.5 GB  Large\n"
        "    700 MB  Small\n"
        "   unknown  Else\n"
        "Choose fewer datasets with -m core (the usual eight), -k or "
        "--vlm-data=NAME,NAME, or allow more with --vlm-download-max-gb. Nothing was "
        "downloaded."
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [(5, "< 1 MB"), (480_000_000, "480 MB"), (12_340_000_000, "12.3 GB")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert size_text(size) == text
