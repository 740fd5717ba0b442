"""Downloads from a real HTTP server on loopback, and the checks of files on disk."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.download import DatasetFile, fetch_dataset, md5_of_file
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"index\tquestion\n1\twhat\n" * 1_000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
OTHER_MD5 = hashlib.md5(b"other", usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one table, whole, cut short, or not at all."""

    requests: list[str]

    def do_GET(self) -> None:
        """Answer by the path."""
        type(self).requests.append(self.path)
        if self.path == "/missing.tsv":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:500] if self.path == "/cut.tsv" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the URL of a running server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def table(url: str | None, md5: str | None = MD5) -> DatasetInfo:
    """Give the record of a dataset with a published file."""
    return DatasetInfo(
        name="Table",
        class_name="ImageVQADataset",
        module="image_vqa",
        kind="vqa",
        url=url,
        md5=md5,
    )


def fetch(
    info: DatasetInfo, folder: Path, *, modified: bool = False, offline: bool = False
) -> DatasetFile:
    """Fetch with both folders below one."""
    return fetch_dataset(
        info,
        data_root=folder / "LMUData",
        cache_dir=folder / "cache",
        allow_modified=modified,
        offline=offline,
    )


def fail(info: DatasetInfo, folder: Path, *, offline: bool = False) -> str:
    """Give the text of the error that fetching ends with."""
    with pytest.raises(VlmEvalError) as caught:
        fetch(info, folder, offline=offline)
    return str(caught.value)


def by_hand(folder: Path) -> str:
    """Give what every message about a missing file ends with."""
    path = folder / "LMUData" / "Table.tsv"
    return f"Put the file at {path}, or set LMUData to the folder that holds Table.tsv."


def test_a_missing_file_is_downloaded_once(server: str, tmp_path: Path) -> None:
    info = table(f"{server}/Table.tsv")
    path = tmp_path / "LMUData" / "Table.tsv"
    expected = DatasetFile(path, MD5, False)
    assert fetch(info, tmp_path) == expected
    assert fetch(info, tmp_path) == expected
    assert path.read_bytes() == CONTENT
    assert Handler.requests == ["/Table.tsv"]
    assert [file.name for file in path.parent.iterdir()] == ["Table.tsv"]


def test_several_downloads_at_once_are_one(server: str, tmp_path: Path) -> None:
    info = table(f"{server}/Table.tsv")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(info, tmp_path), range(8)))
    assert {file.checksum for file in found} == {MD5}
    assert len(Handler.requests) == 1


def test_what_the_server_refuses(server: str, tmp_path: Path) -> None:
    url = f"{server}/missing.tsv"
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


def test_a_cut_connection_leaves_nothing(server: str, tmp_path: Path) -> None:
    text = fail(table(f"{server}/cut.tsv", md5=None), tmp_path)
    assert f"the connection was cut after 500 of {len(CONTENT)} bytes" in text
    assert text.endswith(by_hand(tmp_path))
    assert not list((tmp_path / "LMUData").iterdir())


def test_a_corrupted_file_is_not_kept(server: str, tmp_path: Path) -> None:
    text = fail(table(f"{server}/Table.tsv", md5=OTHER_MD5), tmp_path)
    assert (
        f"what the server sent has the MD5 {MD5}, the published file {OTHER_MD5}. "
        in text
    )
    assert not list((tmp_path / "LMUData").iterdir())


def test_offline_and_without_a_url(server: str, tmp_path: Path) -> None:
    url = f"{server}/Table.tsv"
    assert fail(table(url), tmp_path, offline=True) == (
        f"Table: its file is missing and cannot be downloaded from {url}: "
        f"--vlm-offline is set. {by_hand(tmp_path)}"
    )
    assert fail(table(None), tmp_path) == (
        "Table: its file is missing and cannot be downloaded: ms-vlmeval names no URL "
        f"for it. {by_hand(tmp_path)}"
    )
    assert not Handler.requests


def test_another_checksum_is_refused_unless_allowed(
    server: str, tmp_path: Path
) -> None:
    info = table(f"{server}/Table.tsv")
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
    assert not Handler.requests


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


def test_a_data_folder_that_cannot_be_made(server: str, tmp_path: Path) -> None:
    (tmp_path / "LMUData").touch()
    text = fail(table(f"{server}/Table.tsv"), tmp_path)
    assert "File exists" in text
    assert text.endswith(by_hand(tmp_path))
