"""Dataset files: downloaded when missing, taken up where it was cut, and checked."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.download import (
    DatasetFile,
    Patience,
    md5_of_file,
    progress_line,
)
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


def test_a_server_that_always_cuts(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(cut_at=500, versioned=False)] * 9
    text = fail(table(f"{file_server.url}/Table.tsv", md5=None), tmp_path)
    assert (
        f"the connection was cut after 500 of {len(CONTENT)} bytes (tried 3 times). "
        in text
    )
    assert text.endswith(by_hand(tmp_path))
    # Without a version there is nothing that could be taken up later.
    assert not files(tmp_path)


def test_a_cut_connection_is_taken_up(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(cut_at=500), Step(cut_at=900), Step(cut_at=1_300), Step()]
    lines: list[str] = []
    fetch(table(f"{file_server.url}/Table.tsv"), tmp_path, lines=lines)
    assert file_server.ranges() == ["", "bytes=500-", "bytes=900-", "bytes=1300-"]
    assert lines[0] == (
        f"downloading Table: the connection was cut after 500 of {len(CONTENT)} bytes; "
        "again in 0 s"
    )
    assert files(tmp_path) == ["Table.tsv"]


def test_a_later_session_takes_up_what_has_come(
    file_server: FileServer, tmp_path: Path
) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    file_server.steps = [Step(cut_at=700), Step(status=404)]
    fail(info, tmp_path)
    assert files(tmp_path) == [".Table.tsv.part", ".Table.tsv.part.json"]
    fetch(info, tmp_path)
    assert file_server.ranges() == ["", "bytes=700-", "bytes=700-"]
    assert files(tmp_path) == ["Table.tsv"]


def test_another_address_does_not_take_up_the_part(
    file_server: FileServer, tmp_path: Path
) -> None:
    file_server.steps = [Step(cut_at=700), Step(status=404)]
    fail(table(f"{file_server.url}/Table.tsv"), tmp_path)
    file_server.files["copy/Table.tsv"] = CONTENT
    fetch(table(f"{file_server.url}/copy/Table.tsv"), tmp_path)
    assert file_server.ranges()[-1] == ""


def test_a_part_that_is_whole_is_used(file_server: FileServer, tmp_path: Path) -> None:
    info = table(f"{file_server.url}/Table.tsv")
    file_server.steps = [Step(cut_at=700), Step(status=404)]
    fail(info, tmp_path)
    (tmp_path / "LMUData" / ".Table.tsv.part").write_bytes(CONTENT)
    total = {"Content-Range": f"bytes */{len(CONTENT)}"}
    file_server.steps = [Step(status=416, headers=total)]
    fetch(info, tmp_path)
    assert files(tmp_path) == ["Table.tsv"]


def test_a_server_that_ignores_ranges(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(cut_at=500), Step(ranges=False)]
    fetch(table(f"{file_server.url}/Table.tsv"), tmp_path)
    assert file_server.ranges() == ["", "bytes=500-"]


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_a_file_that_changes_between_two_attempts(
    file_server: FileServer, tmp_path: Path, obeys_if_range: bool
) -> None:
    old = b"old" * 2_000
    file_server.steps = [Step(content=old, cut_at=500)]
    if not obeys_if_range:
        other = {"Content-Range": f"bytes 500-{len(CONTENT) - 1}/{len(CONTENT)}"}
        file_server.steps.append(Step(status=206, headers={**other, "ETag": '"new"'}))
    lines: list[str] = []
    fetch(table(f"{file_server.url}/Table.tsv"), tmp_path, lines=lines)
    assert (tmp_path / "LMUData" / "Table.tsv").read_bytes() == CONTENT
    restarted = "downloading Table: the file has changed on the server; again in 0 s"
    assert (restarted in lines) is not obeys_if_range


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(
    file_server: FileServer, tmp_path: Path, status: int
) -> None:
    file_server.steps = [Step(status=status), Step(status=status)]
    lines: list[str] = []
    fetch(table(f"{file_server.url}/Table.tsv"), tmp_path, lines=lines)
    assert len(file_server.requests) == 3
    assert lines[0].startswith(f"downloading Table: the server answered {status} ")


def test_a_server_that_stays_busy(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(status=503)] * 9
    text = fail(table(f"{file_server.url}/Table.tsv"), tmp_path)
    assert "the server answered 503 Service Unavailable (tried 3 times). Put" in text
    assert len(file_server.requests) == 3


@pytest.mark.parametrize("given", ["1", "Wed, 01 Jan 2121 00:00:00 GMT", "soon"])
def test_how_long_the_server_asks_to_wait(
    file_server: FileServer, tmp_path: Path, given: str
) -> None:
    file_server.steps = [Step(status=429, headers={"Retry-After": given})]
    lines: list[str] = []
    patience = Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.6)
    start = time.monotonic()
    fetch(
        table(f"{file_server.url}/Table.tsv"), tmp_path, lines=lines, patience=patience
    )
    waited = time.monotonic() - start
    # Both numbers are more than the longest wait; what cannot be read is not a wait.
    assert (waited >= 0.6) is (given != "soon")
    assert waited < 20
    assert lines == [
        "downloading Table: the server answered 429 Too Many Requests; again in "
        f"{0 if given == 'soon' else 1} s"
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(
    file_server: FileServer, tmp_path: Path, status: int
) -> None:
    file_server.steps = [Step(status=status)]
    assert f"the server answered {status} " in fail(
        table(f"{file_server.url}/Table.tsv"), tmp_path
    )
    assert len(file_server.requests) == 1


def test_a_corrupted_file_is_not_kept(file_server: FileServer, tmp_path: Path) -> None:
    text = fail(table(f"{file_server.url}/Table.tsv", md5=OTHER_MD5), tmp_path)
    assert (
        f"what came has the MD5 {MD5}, the published one {OTHER_MD5}. Where its "
        "publisher has changed the file, --vlm-allow-modified-data takes it, and marks "
        "its score as modified. "
    ) in text
    assert not files(tmp_path)


def test_a_full_disk(file_server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / "LMUData" / ".Table.tsv.part"
    part.parent.mkdir()
    file_server.files["Table.tsv"] = b"x" * 3_000_000
    with limited_files(1_000_000):
        text = fail(table(f"{file_server.url}/Table.tsv"), tmp_path)
    assert text == (
        "Table: its file is missing and cannot be downloaded from "
        f"{file_server.url}/Table.tsv: File too large. {by_hand(tmp_path)}"
    )


def test_a_disk_that_is_too_small(file_server: FileServer, tmp_path: Path) -> None:
    file_server.steps = [Step(length=10**18)]
    text = fail(table(f"{file_server.url}/Table.tsv"), tmp_path)
    assert (
        f"1000000000.0 GB are to come, and the disk of {tmp_path / 'LMUData'} has "
    ) in text
    assert text.endswith(f" GB free. {by_hand(tmp_path)}")


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_progress_is_told(file_server: FileServer, tmp_path: Path) -> None:
    lines: list[str] = []
    patience = Patience(report_s=0.0)
    fetch(
        table(f"{file_server.url}/Table.tsv"), tmp_path, lines=lines, patience=patience
    )
    assert re.fullmatch(
        r"downloading Table: 0 of 0 MB, \d+(\.\d)? MB/s, 0:00 left", lines[-1]
    )


@pytest.mark.parametrize(
    ("have", "total", "speed", "line"),
    [
        (120, 480, 12, "downloading X: 120 of 480 MB, 12 MB/s, 0:30 left"),
        (120, 12_345, 1.25, "downloading X: 120 of 12345 MB, 1.2 MB/s, 163:00 left"),
        (120, None, 12, "downloading X: 120 MB, 12 MB/s"),
    ],
)
def test_a_line_of_progress(
    have: int, total: int | None, speed: float, line: str
) -> None:
    total = None if total is None else total * 10**6
    assert progress_line("X", have * 10**6, total, speed * 1e6) == line
