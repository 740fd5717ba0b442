"""Paths in tables: what is opened, where it may lie, and what never waits."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.own import OWN, describe_own
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import digest_in_sandbox
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    UnfitFileError,
    read_regular,
)
from tests.support.sandbox_calls import run_inside
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    media_of,
    prepare,
    rows_of,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

OUTSIDE = "it lies outside of the dataset's own folders"


@pytest.fixture
def special(tmp_path: Path) -> Path:
    """Give a folder with files that must not be read, by what is said of each."""
    folder = tmp_path / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "link-to-fifo.png").symlink_to("fifo.png")
    (folder / "link-to-zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(folder / "socket.png"))
    (folder / "folder.png").mkdir()
    with (folder / "large.png").open("wb") as file:
        file.truncate(MOST_IMAGE_BYTES + 1)
    return folder


DEVICE = "it is a device or a socket, not a regular file"
SAID = {
    "/dev/zero": DEVICE,
    "fifo.png": "it is a FIFO, not a regular file",
    "link-to-fifo.png": "it is a FIFO, not a regular file",
    "link-to-zero.png": DEVICE,
    "socket.png": DEVICE,
    "folder.png": "it is a folder",
    "large.png": "it has 268,435,457 bytes, more than 268,435,456",
    "none.png": "No such file or directory",
}


def own_table(folder: Path, images: Sequence[str]) -> Path:
    """Write a table of one's own that names these images."""
    rows = [{"question": "?", "answer": "x", "image_path": each} for each in images]
    return write_table(folder / "Mine.tsv", rows)


def access(sandbox: Sandbox, folder: Path, said: list[str]) -> FileAccess:
    """Give how a run reads tables; what it says goes to `said`."""
    return FileAccess(
        cache_dir=folder / "cache",
        digest=lambda files: digest_in_sandbox(sandbox, files),
        data_root=folder / "LMUData",
        announce=said.append,
    )


def test_what_is_no_regular_file_is_told_with_its_row(
    sandbox: Sandbox, special: Path
) -> None:
    (special / "good.png").write_bytes(draw(1))
    table = own_table(special, ["good.png", *SAID, "a\0b.png"])
    for attempt in range(2):
        found = access(sandbox, special.parent / str(attempt), [])
        with pytest.raises(VlmEvalError) as caught:
            describe_own(table, found)
        lines = str(caught.value).splitlines()
        assert lines[1:6] == [
            f"  row {row}: {name}: {reason}"
            for row, (name, reason) in enumerate(list(SAID.items())[:5], start=2)
        ]
        assert lines[6] == "  and 4 others"


@pytest.mark.parametrize("name", [name for name in SAID if name != "/dev/zero"])
def test_a_published_table_waits_for_no_file(
    sandbox: Sandbox, special: Path, tmp_path: Path, name: str
) -> None:
    # What becomes of a file between the first look and the preparation.
    rows = [
        {"index": 1, "question": "?", "answer": "x", "image_path": name},
        {"index": 2, "question": "?", "answer": "x", "image_path": "good.png"},
    ]
    (special / "good.png").write_bytes(draw(1))
    info = describe(write_table(special / "T.tsv", rows), "ImageVQADataset")
    bad, good = read_samples(prepare(info, sandbox, tmp_path))
    assert good.error is None
    assert bad.error is not None
    assert bad.error.endswith(f"{name}: {SAID[name]}")
    own = replace(info, rules=OWN, confined=False, checksum="another")
    bad, good = read_samples(prepare(own, sandbox, tmp_path))
    assert good.error is None
    assert bad.error is not None
    assert bad.error.endswith(f"{name}: {SAID[name]}")


def test_a_file_that_becomes_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    path, file, fifo = (tmp_path / name for name in ("x.png", "file", "fifo"))
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            file.write_bytes(b"image")
            file.replace(path)
            os.mkfifo(fifo)
            fifo.replace(path)

    file.write_bytes(b"image")
    file.replace(path)
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        found = {"read": 0, "refused": 0}
        reasons = set()
        while min(found.values()) < 200:
            try:
                assert read_regular(path, 100) == b"image"
                found["read"] += 1
            except UnfitFileError as error:
                reasons.add(error.strerror)
                found["refused"] += 1
    finally:
        done.set()
        swapping.join()
    assert reasons == {"it is a FIFO, not a regular file"}


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(UnfitFileError, match="it has 5 bytes, more than 4"):
        read_regular(path, 4)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Give an image that no table has to do with."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "photo.png").write_bytes(draw(7))
    return folder / "photo.png"


@pytest.mark.parametrize("way", ["absolute", "up", "link", "linked folder"])
def test_a_published_table_reads_no_file_outside_of_its_folder(
    sandbox: Sandbox, tmp_path: Path, private: Path, way: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.png").symlink_to(private)
    (folder / "linked").symlink_to(private.parent)
    path = {
        "absolute": str(private),
        "up": "../private/photo.png",
        "link": "link.png",
        "linked folder": "linked/photo.png",
    }[way]
    row = {"question": "?", "answer": "x"}
    rows = [
        {**row, "index": 1, "image_path": path},
        {**row, "index": 2, "image_path": "good.png"},
    ]
    (folder / "good.png").write_bytes(draw(1))
    info = describe(write_table(folder / "T.tsv", rows), "ImageVQADataset")
    bad, good = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert good.error is None
    assert bad.error is not None
    leads = f", that is {private}" if "link" in way else ""
    assert bad.error.endswith(f"{path}{leads}: {OUTSIDE}")
    # A table of one's own may.
    own = replace(info, rules=OWN, confined=False, checksum="another")
    samples = read_samples(prepare(own, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]


@pytest.mark.parametrize("class_name", ["ImageMCQDataset", "MathVista"])
def test_a_published_table_changes_no_file_outside_of_its_folder(
    sandbox: Sandbox, tmp_path: Path, private: Path, class_name: str
) -> None:
    # Where a table has images and paths, ms-vlmeval writes the one to the other.
    before = private.read_bytes()
    further = {"question_type": "free_form", "answer_type": "integer"}
    further |= {"choices": "[]", "precision": "0", "answer_option": "1"}
    further |= {"skills": "[]", "task": "sums"}
    paths = [str(private), f"../../../../../../..{private}", str(tmp_path / "new.png")]
    data = [cell(draw(seed)) for seed in range(3)]
    rows = [
        {**row, **further, "image_path": path}
        for row, path in zip(choice_rows(data), paths, strict=True)
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    info = describe(write_table(folder / "MathVista_MINI.tsv", rows), class_name)
    prepared = prepare(info, sandbox, tmp_path / "cache")
    # What is shown is the table's own image, or the row says why there is none.
    own = {name.partition(".")[0] for name in media_of(prepared)}
    for sample in read_samples(prepared):
        shown = [part.media for turn in sample.prompt for part in turn if part.media]
        assert bool(shown) != (sample.error is not None)
        assert {name.partition(".")[0] for name in shown} <= own
    assert private.read_bytes() == before
    assert not private.is_symlink()
    assert not (tmp_path / "new.png").exists()
    assert draw(7) not in [
        file.read_bytes() for file in (prepared.folder / "media").iterdir()
    ]


def test_whatever_opens_a_file_is_kept_in_the_dataset_s_folders(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, private: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(private)
    code = f"""
import os, pathlib, shutil, tempfile
import pandas as pd
from PIL import Image
from pytest_vlmeval.sandbox.inside.job import Job, running
private, cwd = pathlib.Path({str(private)!r}), pathlib.Path.cwd().resolve()
job = Job(rows=pd.DataFrame(), folder=cwd, on_progress=print, within=[cwd])
actions = dict(
    open=lambda: open(private),
    image=lambda: Image.open(str(private)),
    link=lambda: open("link"),
    low=lambda: os.open(private, os.O_RDONLY),
    write=lambda: open(private.parent / "new", "w"),
    up=lambda: open("../private/photo.png"),
    remove=lambda: os.remove(private),
    move=lambda: os.rename(private, "mine"),
    replace=lambda: os.replace("own", private),
    point=lambda: os.symlink("own", private.parent / "new"),
    hard=lambda: os.link(private, "mine"),
    copy=lambda: shutil.copy(private, "mine"),
    system=lambda: open(os.__file__, "a"),
)
pathlib.Path("own").write_text("x")
with running(job):
    found = {{name: attempt(action) for name, action in actions.items()}}
    import xml.dom.minidom, colorsys
    def own():
        with tempfile.TemporaryDirectory(dir=cwd) as folder:
            pathlib.Path(folder, "a").write_text(pathlib.Path("own").read_text())
            os.symlink("a", pathlib.Path(folder, "b"))
        open(os.__file__).close()
        # Packages write there as they are imported.
        for mode in ("r", "w", "r+b"):
            open(os.devnull, mode).close()
    found["own"] = attempt(own)
job.within = None
with running(job):
    found["anywhere"] = attempt(lambda: open(private).close())
print(json.dumps(found))
"""
    found = run_inside(sandbox_environment, code, inside)
    assert found.pop("own") == found.pop("anywhere") == "nothing"
    for name, said in found.items():
        assert said.startswith("ContainedError: "), (name, said)
        assert said.endswith(OUTSIDE), (name, said)
    assert private.read_bytes() == draw(7)
    assert list(private.parent.iterdir()) == [private]


def test_a_table_of_one_s_own_may_name_images_anywhere_and_says_so(
    sandbox: Sandbox, tmp_path: Path, private: Path
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "near.png").write_bytes(draw(1))
    (folder / "link.png").symlink_to(private)
    table = own_table(folder, ["near.png", str(private), "link.png"])
    said: list[str] = []
    found = access(sandbox, tmp_path, said)
    info = describe_own(table, found)
    assert said == [f"Mine.tsv names images outside of its folder, in {private.parent}"]
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None] * 3
    # A changed image changes the dataset; one that is as it was is not read again.
    assert describe_own(table, found).checksum == info.checksum
    blind = found._replace(digest=lambda files: pytest.fail(f"{files} are read"))
    assert describe_own(table, blind).checksum == info.checksum
    private.write_bytes(draw(8))
    assert describe_own(table, found).checksum != info.checksum
    with pytest.raises(VlmEvalError) as caught:
        describe_own(table, found._replace(own_paths="inside"))
    assert str(caught.value).splitlines() == [
        f"{table} cannot be used (row 1 is the one below the names):",
        f"  row 2: {private}: {private} lies outside of the table's folder",
        f"  row 3: link.png: {private} lies outside of the table's folder",
        "--vlm-data-paths=inside reads no images outside of the table's folder. Move "
        "them there, or leave the option out.",
    ]
    (folder / "link.png").unlink()
    private.rename(folder / "moved.png")
    table = own_table(folder, ["near.png", "moved.png"])
    assert describe_own(table, found._replace(own_paths="inside")).confined


def test_rows_with_and_without_images(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw(1))
    one, two = cell(draw(2)), cell(draw(3))
    options = {"question": "Which?", "A": "red", "B": "blue"}
    rows = [
        {**options, "answer": "a", "image": one, "image_path": ""},
        {**options, "answer": " B ", "image": "", "image_path": ""},
        {**options, "answer": "b", "image": str([one, two]), "image_path": ""},
        {**options, "answer": "A", "image": "1", "image_path": ""},
        {**options, "answer": "A", "image": "", "image_path": "a.png"},
        {**options, "answer": "A", "image": cell(b"x" * 90), "image_path": ""},
        {**options, "answer": "A", "image": "A" * 69, "image_path": ""},
    ]
    table = write_table(tmp_path / "Mine.tsv", rows)
    said: list[str] = []
    info = describe_own(table, access(sandbox, tmp_path, said))
    assert said == ["Mine: 1 row has no image and will be asked as text alone"]
    assert (info.modality, info.class_name) == ("image", "ImageMCQDataset")
    prepared = prepare(info, sandbox, tmp_path / "cache")
    samples = read_samples(prepared)
    shown = [
        [part.media for turn in sample.prompt for part in turn if part.media]
        for sample in samples
    ]
    assert [len(each) for each in shown] == [1, 0, 2, 1, 1, 0, 0]
    assert shown[3] == shown[0]
    assert [sample.reference for sample in samples] == list("ABBAAAA")
    assert [sample.error for sample in samples[:5]] == [None] * 5
    start = "row 6 (index 6): the image cannot be read: its 90 bytes are not an "
    assert (samples[5].error or "").startswith(start)
    start = "row 7 (index 7): the image cannot be read: its text is not base64 ("
    assert (samples[6].error or "").startswith(start)


def test_without_any_image_it_is_text(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "x", "image": "", "image_path": ""}] * 2
    info = describe_own(
        write_table(tmp_path / "Mine.tsv", rows), access(sandbox, tmp_path, [])
    )
    assert info.modality == "text"
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]


def test_avif_is_taken_where_pillow_reads_it(
    sandbox_environment: SandboxEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    data = draw(2, "AVIF")
    rows = rows_of(["x"])
    table = write_table(tmp_path / "T.tsv", [{**rows[0], "image": cell(data)}])
    (sample,) = read_samples(
        prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    )
    assert sample.error is None
    assert sample.prompt[0][0].media_type == "image/avif"
    # In an environment whose Pillow has no such decoder, and of what it never reads.
    code = f"""
from PIL import features
known = features.check
features.check = lambda name: name != "avif" and known(name)
from importlib import reload
from pytest_vlmeval.sandbox.inside import media
check_image = reload(media).check_image
heic = b"\\0\\0\\0\\x1cftypheic" + b"x" * 80
print(json.dumps([attempt(lambda: check_image(data))
                  for data in (bytes.fromhex({data.hex()!r}), heic)]))
"""
    avif, heic = run_inside(sandbox_environment, code, tmp_path)
    for name, said in (("AVIF", avif), ("HEIC", heic)):
        assert said.startswith(f"ImageError: it is {name}, which Pillow ")
        assert said.endswith(
            " of the sandbox's environment does not read. Convert it to PNG or JPEG."
        )


def test_json_of_digests_has_a_reason_for_each_file(
    sandbox: Sandbox, special: Path
) -> None:
    files = [special / name for name in ("fifo.png", "large.png")]
    found = digest_in_sandbox(sandbox, files)
    assert json.loads(json.dumps(found)) == [
        ["", "it is a FIFO, not a regular file"],
        ["", "it has 268,435,457 bytes, more than 268,435,456"],
    ]
