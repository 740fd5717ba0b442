"""Transfers from a real HTTP server that cuts, refuses, changes and corrupts files."""

from __future__ import annotations

import re
import resource
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.download import Patience, progress_line
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
from tests.support.file_server import FileServer, Step, run_file_server


@pytest.fixture(autouse=True)
def published(file_server: FileServer) -> None:
    """Let the server have the table."""
    file_server.files["Table.tsv"] = CONTENT


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


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with run_file_server(context) as server:
        server.files["Table.tsv"] = CONTENT
        text = fail(table(f"{server.url}/Table.tsv"), tmp_path)
        assert "CERTIFICATE_VERIFY_FAILED" in text
        assert "tried" not in text
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        # From Python 3.12 on, a process keeps what it trusted at first.
        urllib.request.install_opener(None)
        assert fetch(table(f"{server.url}/Table.tsv"), tmp_path).checksum == MD5


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
