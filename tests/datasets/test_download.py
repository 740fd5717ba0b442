"""Dataset files: downloaded when missing, taken from a mirror, and checked."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.download import DatasetFile, md5_of_file
from tests.support.download_calls import (
    CONTENT,
    MD5,
    OTHER_MD5,
    by_hand,
    fail,
    fetch,
    files,
    table,
)
from tests.support.file_server import FileServer, Step


@pytest.fixture(autouse=True)
def published(file_server: FileServer) -> None:
    """Let the server have the table."""
    file_server.files["Table.tsv"] = CONTENT


def test_a_missing_file_is_downloaded_once(
    file_server: FileServer, tmp_path: Path
) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    path = tmp_path / "LMUData" / "Table.tsv"
    expected = DatasetFile(path, MD5, False)
    assert fetch(info, tmp_path) == expected
    assert fetch(info, tmp_path) == expected
    assert path.read_bytes() == CONTENT
    assert file_server.asked() == ["/Table.tsv"]
    assert [file.name for file in path.parent.iterdir()] == ["Table.tsv"]


def test_several_downloads_at_once_are_one(
    file_server: FileServer, tmp_path: Path
) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(info, tmp_path), range(8)))
    assert {file.checksum for file in found} == {MD5}
    assert len(file_server.requests) == 1


def test_what_the_server_refuses(file_server: FileServer, tmp_path: Path) -> None:
    url = f"{file_server.url}/missing.tsv"
    assert fail(table(url), tmp_path) == (
        f"Table: its file is missing and cannot be downloaded from {url}: the server "
        f"answered 404 Not Found. {by_hand(tmp_path)}"
    )


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/Table.tsv"
    text = fail(table(url), tmp_path)
    assert text.startswith(
        f"Table: its file is missing and cannot be downloaded from {url}: [Errno "
    )
    assert text.endswith(by_hand(tmp_path))


def test_offline_and_without_a_url(file_server: FileServer, tmp_path: Path) -> None:
    url = f"{file_server.url}/Table.tsv"
    assert fail(table(url), tmp_path, offline=True) == (
        f"Table: its file is missing and cannot be downloaded from {url}: "
        f"--vlm-offline is set. {by_hand(tmp_path)}"
    )
    assert fail(table(None), tmp_path) == (
        "Table: its file is missing and cannot be downloaded: ms-vlmeval names no URL "
        f"for it. {by_hand(tmp_path)}"
    )
    assert not file_server.requests


def test_another_checksum_is_refused_unless_allowed(
    file_server: FileServer, tmp_path: Path
) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    path = tmp_path / "LMUData" / "Table.tsv"
    path.parent.mkdir()
    path.write_bytes(b"other")
    assert fail(info, tmp_path) == (
        f"Table: {path} is not the published file: its MD5 is {OTHER_MD5}, the "
        f"published one {MD5}. Remove it to have it downloaded again, or evaluate it "
        "as it is with --vlm-allow-modified-data; its score is then marked as modified."
    )
    assert fetch(info, tmp_path, modified=True) == DatasetFile(path, OTHER_MD5, True)
    assert path.read_bytes() == b"other"
    assert not file_server.requests
    path.unlink()
    assert fetch(info, tmp_path) == DatasetFile(path, MD5, False)
    assert file_server.asked() == ["/Table.tsv"]


def test_a_folder_in_the_file_s_place(file_server: FileServer, tmp_path: Path) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    path = tmp_path / "LMUData" / "Table.tsv"
    path.mkdir(parents=True)
    assert fail(info, tmp_path) == (
        f"Table: {path} is not a regular file. Remove it to have the dataset's file "
        "downloaded."
    )
    path.rmdir()
    assert fetch(info, tmp_path) == DatasetFile(path, MD5, False)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "Own.tsv"
    info = replace(table(None, md5=None), path=path)
    assert fail(info, tmp_path) == (
        f"Table: there is no file {path}. Name a .tsv file that exists."
    )
    path.write_bytes(CONTENT)
    assert fetch(info, tmp_path) == DatasetFile(path, MD5, False)


def test_the_checksum_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "Table.tsv"
    path.write_bytes(CONTENT)
    assert md5_of_file(path, tmp_path) == MD5
    state = path.stat()
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert md5_of_file(path, tmp_path) == MD5
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert md5_of_file(path, tmp_path) != MD5


def test_a_data_folder_that_cannot_be_made(
    file_server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "LMUData").touch()
    text = fail(table(f"{file_server.url}/Table.tsv"), tmp_path)
    assert "File exists" in text
    assert text.endswith(by_hand(tmp_path))


def test_a_mirror_has_the_same_file_names(
    file_server: FileServer, tmp_path: Path
) -> None:
    info = table("https://host.invalid/folder/Table%20one.tsv?download=1")
    file_server.files["copies/Table%20one.tsv"] = CONTENT
    found = fetch(info, tmp_path, mirror=f"{file_server.url}/copies/")
    assert found == DatasetFile(tmp_path / "LMUData" / "Table.tsv", MD5, False)
    assert file_server.asked() == ["/copies/Table%20one.tsv"]


def test_a_mirror_that_is_a_folder(tmp_path: Path) -> None:
    info = table("https://host.invalid/folder/Table%20one.tsv")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    assert fail(info, tmp_path, mirror=str(mirror)) == (
        "Table: its file is missing and cannot be downloaded from "
        f"{mirror}/Table one.tsv: No such file or directory ({mirror}/Table one.tsv). "
        f"{by_hand(tmp_path)}"
    )
    copy = mirror / "Table one.tsv"
    copy.write_bytes(CONTENT)
    # A folder is no network.
    found = fetch(info, tmp_path, mirror=str(mirror), offline=True)
    assert found.checksum == MD5
    assert copy.stat().st_nlink == found.path.stat().st_nlink == 1
    copy.write_bytes(b"other")
    found.path.unlink()
    assert f"what came has the MD5 {OTHER_MD5}" in fail(
        info, tmp_path, mirror=str(mirror)
    )


@pytest.mark.parametrize("mirrored", [False, True], ids=["published", "mirror"])
def test_an_unknown_file_is_kept_where_it_is_allowed(
    file_server: FileServer, tmp_path: Path, mirrored: bool
) -> None:
    """What a publisher has changed can be used before its checksum is known here."""
    info = table(f"{file_server.url}/Table.tsv", md5=OTHER_MD5)
    mirror = file_server.url if mirrored else None
    unknown = f"{MD5}, the published one {OTHER_MD5}"
    assert (
        f"cannot be downloaded from {file_server.url}/Table.tsv: what came has the MD5 "
        f"{unknown}. Where its publisher has changed the file, "
        "--vlm-allow-modified-data takes it, and marks its score as modified. Put the "
    ) in fail(info, tmp_path, mirror=mirror)
    assert files(tmp_path) == []
    lines: list[str] = []
    found = fetch(info, tmp_path, modified=True, mirror=mirror, lines=lines)
    assert found == DatasetFile(tmp_path / "LMUData" / "Table.tsv", MD5, True)
    assert lines == [
        f"downloaded Table: its MD5 is {unknown}; it is evaluated as modified data"
    ]
    # It is there now, and still not used by the way.
    assert f"is not the published file: its MD5 is {unknown}. Remove it" in fail(
        info, tmp_path, mirror=mirror
    )
    assert fetch(info, tmp_path, modified=True, mirror=mirror) == found
    assert file_server.asked() == ["/Table.tsv"] * 2


@pytest.mark.parametrize(
    "content", [b"", b"<html>log in</html>\n<p>\t</p>\n", b"index\tquestion\n"]
)
def test_what_is_no_table_is_not_kept_where_any_file_is_allowed(
    file_server: FileServer, tmp_path: Path, content: bytes
) -> None:
    """A page to log in, say: it would be taken for the dataset by every later run."""
    file_server.files["Table.tsv"] = content
    text = fail(table(f"{file_server.url}/Table.tsv"), tmp_path, modified=True)
    assert ("/Table.tsv: what came is no table with names and rows. Put the ") in text
    assert files(tmp_path) == []


def test_a_mirror_stands_in_where_there_is_no_url(tmp_path: Path) -> None:
    (tmp_path / "Table.tsv").write_bytes(CONTENT)
    assert fetch(table(None), tmp_path, mirror=str(tmp_path)).checksum == MD5


FETCH = """
import sys
from pathlib import Path
from tests.support.download_calls import fetch, table

lines = []
fetch(table(sys.argv[1]), Path(sys.argv[2]), lines=lines)
print(*lines, sep="\\n")
"""


def test_two_processes_download_once(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(wait_s=4)]
    command = [sys.executable, "-c", FETCH, f"{file_server.url}/Table.tsv"]
    command.append(str(tmp_path))
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert file_server.asked() == ["/Table.tsv"]
    assert said == ["\n", "waiting for the download of Table\n"]
