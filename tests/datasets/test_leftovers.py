"""What killed processes leave is removed; what a living process uses stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_vlmeval.datasets.download import FileAccess, fetch_dataset
from pytest_vlmeval.reports.html import write_whole
from pytest_vlmeval.sandbox.environment import HeldFolder, sweep, write_held
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    prepare,
    write_table,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

Starter = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Give what runs a script in a process with a temporary folder of the test."""
    started: list[subprocess.Popen[bytes]] = []
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(script: str, *arguments: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, "TMPDIR": str(temporary)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(found: Callable[[], list[Path]], count: int) -> list[Path]:
    """Wait until so many paths are there."""
    for _ in range(1_200):
        if len(paths := found()) >= count:
            return paths
        time.sleep(0.05)
    raise AssertionError(f"{found()} are not {count}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process as the system does when memory is short."""
    process.send_signal(signal.SIGKILL)
    process.wait()


HOLD = """
import sys, time
from pathlib import Path
from pytest_vlmeval.sandbox.environment import HeldFolder
folder = HeldFolder("held-", Path(sys.argv[1]))
(folder.path / sys.argv[2]).touch()
time.sleep(600)
"""


def test_folders_of_the_dead_go_and_those_of_the_living_stay(
    tmp_path: Path, start: Starter
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "held-by-hand").symlink_to(tmp_path)
    dead = start(HOLD, place, "dead")
    start(HOLD, place, "living")
    wait_for(lambda: list(place.glob("held-*/dead")), 1)
    (living,) = wait_for(lambda: list(place.glob("held-*/living")), 1)
    with HeldFolder("held-", place) as own:
        assert list(place.glob("held-*/dead"))
        kill(dead)
        with HeldFolder("held-", place) as another:
            # The link leads to what is not ours.
            assert set(place.iterdir()) == {
                *(own, another, living.parent, place / "held-by-hand")
            }
    assert living.is_file()
    assert not own.exists()


WRITE = """
import os, sys, time
from pathlib import Path
from pytest_vlmeval.sandbox.environment import write_held
os.fchmod = lambda *given: time.sleep(600)  # as on a disk that is slow
write_held(Path(sys.argv[1]), b"half", mode=0o644)
"""


def test_half_written_files_go_when_the_same_is_written_again(
    tmp_path: Path, start: Starter
) -> None:
    report, other = tmp_path / "report[1].html", tmp_path / "other.html"
    report.write_text("before")
    dead, living = start(WRITE, report), start(WRITE, report)
    start(WRITE, other)

    def parts() -> list[Path]:
        return [each for each in tmp_path.glob(".*.new") if each.stat().st_size == 4]

    wait_for(parts, 3)
    kill(dead)
    write_whole(report, b"whole")
    assert report.read_bytes() == b"whole"
    assert len(parts()) == 2
    kill(living)
    write_held(report, b"another")
    assert report.read_bytes() == b"another"
    (left,) = parts()
    assert left.name.startswith(".other.html.")
    assert not list(tmp_path.glob(".vlmeval-new-*"))


SANDBOX = """
import sys, time
from pathlib import Path
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.process import Sandbox
sandbox = Sandbox(Path(sys.argv[1]))
print(describe_sandbox(sandbox).ms_vlmeval, flush=True)
time.sleep(600)
"""


def test_a_sandbox_s_folder_goes_with_the_next_start(
    tmp_path: Path, start: Starter, sandbox_environment: SandboxEnvironment
) -> None:
    def folders() -> set[Path]:
        return set((tmp_path / "tmp").glob("vlmeval-sandbox-*"))

    def ready(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline().strip()

    dead = start(SANDBOX, sandbox_environment.python)
    ready(dead)
    (left,) = folders()
    living = start(SANDBOX, sandbox_environment.python)
    ready(living)
    assert left in folders()
    kill(dead)
    assert left in folders()
    (used,) = folders() - {left}
    ready(start(SANDBOX, sandbox_environment.python))
    assert left not in folders()
    assert used in folders()
    assert len(folders()) == 2


PREPARE = """
import sys
from pathlib import Path
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import describe, prepare
python, table, cache = map(Path, sys.argv[1:])
prepare(describe(table, "ImageVQADataset"), Sandbox(python), cache)
print("done", flush=True)
"""


@pytest.mark.slow
def test_half_prepared_datasets_go_with_the_next_preparation(
    tmp_path: Path,
    start: Starter,
    sandbox: Sandbox,
    sandbox_environment: SandboxEnvironment,
) -> None:
    rows = [
        {"index": i, "question": "?", "image": cell(draw(i, "BMP", (900, 900)))}
        for i in range(40)
    ]
    tables = [write_table(tmp_path / f"{name}.tsv", rows) for name in ("Dead", "Alive")]
    cache = tmp_path / "cache"

    def parts(name: str) -> list[Path]:
        return list((cache / "prepared" / name).glob(".*.part-*"))

    dead, living = (
        start(PREPARE, sandbox_environment.python, t, cache) for t in tables
    )
    wait_for(lambda: parts("Dead"), 1)
    (used,) = wait_for(lambda: parts("Alive"), 1)
    os.kill(living.pid, signal.SIGSTOP)
    kill(dead)
    (left,) = parts("Dead")
    small = write_table(tmp_path / "Small.tsv", choice_rows([cell(draw(1))]))
    prepare(describe(small, "ImageMCQDataset"), sandbox, cache)
    assert not left.exists()
    assert used.exists()
    os.kill(living.pid, signal.SIGCONT)
    assert living.wait(timeout=120) == 0
    assert not parts("Alive")
    again = prepare(describe(tables[0], "ImageVQADataset"), sandbox, cache)
    assert again.sample_count == 40


LOCK = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_part_of_a_file_that_is_there_goes_unless_it_is_being_brought(
    tmp_path: Path, start: Starter
) -> None:
    table = write_table(tmp_path / "POPE.tsv", choice_rows([cell(draw(1))]))
    part, note = tmp_path / ".POPE.tsv.part", tmp_path / ".POPE.tsv.part.json"
    part.write_bytes(b"half")
    note.write_text("{}")
    info = describe(table, "ImageYORNDataset")
    access = FileAccess(tmp_path, tmp_path / "cache", offline=True)
    lock = tmp_path / "cache" / "locks" / "download-POPE.lock"
    lock.parent.mkdir(parents=True)
    holder = start(LOCK, lock)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    fetch_dataset(info, access)
    assert part.exists()
    kill(holder)
    fetch_dataset(info, access)
    assert not part.exists()
    assert not note.exists()
    with FileLock(lock, timeout=0):
        pass


def test_nothing_is_swept_that_somebody_else_owns(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-link").symlink_to(tmp_path)
    (tmp_path / "b-file").touch()
    if os.getuid() == 0:
        os.chown(tmp_path / "a-folder", 65534, 65534)
    sweep(tmp_path, "a-*")
    left = {path.name for path in tmp_path.iterdir()}
    assert {"a-link", "b-file"} <= left
    assert "a-file" not in left
    assert ("a-folder" in left) is (os.getuid() == 0)
