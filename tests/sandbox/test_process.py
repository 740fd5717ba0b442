"""The sandbox's process: its start, its surroundings, the calls it serves, its ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.process import Helper, HelperEnded, Sandbox, SandboxFault
from tests.support.sandbox_calls import call_prepare
from tests.support.sandbox_calls import large_table as large_table
from tests.support.sandbox_calls import own_sandbox as own_sandbox
from tests.support.sandbox_tables import describe, prepare, write_table

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not (PROC / "self").exists(), reason="no /proc here")


def children(parent: int) -> list[int]:
    """Give the sandbox processes below a process."""
    found = []
    for folder in PROC.iterdir():
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        state, parent_of = re.sub(r".*\) ", "", stat, flags=re.DOTALL).split()[:2]
        if int(parent_of) == parent and state != "Z" and b"bootstrap.py" in command:
            found.append(int(folder.name))
    return found


NewChildren = Callable[[], list[int]]


@pytest.fixture
def new_children() -> NewChildren:
    """Give what lists the sandbox processes started since; other tests have theirs."""
    before = set(children(os.getpid()))
    return lambda: [pid for pid in children(os.getpid()) if pid not in before]


def environment_of(process: int) -> dict[str, str]:
    """Give the environment a process was started with."""
    entries = (PROC / str(process) / "environ").read_text().strip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries)


def wait_until_gone(process: int, limit_s: float = 10.0) -> bool:
    """Whether a process ends in time; one that nobody waits for counts as ended."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if ") Z " in (PROC / str(process) / "stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_starting_waits_for_nothing(own_sandbox: Sandbox) -> None:
    start = time.monotonic()
    own_sandbox.start()
    started_s = time.monotonic() - start
    assert describe_sandbox(own_sandbox).ms_vlmeval
    assert started_s < (time.monotonic() - start) / 2


@needs_proc
def test_it_gets_nothing_of_the_users(
    own_sandbox: Sandbox, new_children: NewChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    describe_sandbox(own_sandbox)
    (process,) = new_children()
    environment = environment_of(process)
    folder = Path(environment["HOME"])
    assert environment == {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
    }
    assert (PROC / str(process) / "cwd").readlink() == folder
    assert os.getpgid(process) == process
    own_sandbox.close()
    assert not folder.exists()
    assert wait_until_gone(process)
    own_sandbox.close()


@needs_proc
def test_a_missed_deadline_ends_the_process_and_the_next_call_gets_a_fresh_one(
    own_sandbox: Sandbox, new_children: NewChildren, large_table: Path, tmp_path: Path
) -> None:
    describe_sandbox(own_sandbox)
    (first,) = new_children()
    with pytest.raises(VlmEvalError) as caught:
        call_prepare(own_sandbox, large_table, tmp_path, deadline_s=0.2)
    assert str(caught.value) == (
        "Preparing Large took longer than 0.2 s and was stopped (--vlm-patience gives "
        "it more time). Run the same command to try again, with all answers kept.\n"
        "Last output: none"
    )
    assert wait_until_gone(first)
    assert describe_sandbox(own_sandbox).ms_vlmeval
    assert new_children() != [first]


@needs_proc
def test_a_process_that_dies_is_reported_with_its_task(
    own_sandbox: Sandbox, new_children: NewChildren, large_table: Path, tmp_path: Path
) -> None:
    describe_sandbox(own_sandbox)
    (process,) = new_children()

    def kill(done: int, total: int) -> None:
        os.kill(process, signal.SIGKILL)

    with pytest.raises(VlmEvalError) as caught:
        call_prepare(own_sandbox, large_table, tmp_path, on_progress=kill)
    assert str(caught.value).startswith(
        "Preparing Large ended with its sandbox process (signal SIGKILL). Run the same "
        "command to try again"
    )
    assert describe_sandbox(own_sandbox).ms_vlmeval


@needs_proc
def test_one_that_died_between_two_calls_is_replaced(
    own_sandbox: Sandbox, new_children: NewChildren
) -> None:
    describe_sandbox(own_sandbox)
    (process,) = new_children()
    os.kill(process, signal.SIGKILL)
    assert wait_until_gone(process)
    assert describe_sandbox(own_sandbox).ms_vlmeval


@needs_proc
def test_a_call_that_a_dying_process_never_took_is_sent_to_another(
    own_sandbox: Sandbox, new_children: NewChildren
) -> None:
    """A stopped process is alive as far as anybody can see, and takes nothing."""
    describe_sandbox(own_sandbox)
    (first,) = new_children()
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as executor:
        call = executor.submit(describe_sandbox, own_sandbox)
        with pytest.raises(TimeoutError):
            call.result(timeout=0.5)
        os.kill(first, signal.SIGKILL)
        assert call.result(timeout=60).ms_vlmeval
    assert new_children() != [first]


@needs_proc
def test_a_fresh_process_that_dies_is_not_tried_again(
    own_sandbox: Sandbox, new_children: NewChildren
) -> None:
    """One that cannot start would be started for ever."""
    with ThreadPoolExecutor(1) as executor:
        call = executor.submit(describe_sandbox, own_sandbox)
        end = time.monotonic() + 10
        while not (processes := new_children()) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(processes[0], signal.SIGKILL)
        with pytest.raises(VlmEvalError) as caught:
            call.result(timeout=60)
    assert str(caught.value).startswith(
        "Starting the sandbox ended with its sandbox process (signal SIGKILL). Run "
    )


@needs_proc
def test_it_dies_with_its_parent(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from pytest_vlmeval.sandbox.process import Sandbox\n"
        "from pytest_vlmeval.sandbox.calls import describe_sandbox\n"
        "sandbox = Sandbox(Path(sys.argv[1])); describe_sandbox(sandbox)\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, sandbox_environment.python],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (process,) = children(parent.pid)
        parent.kill()
    assert wait_until_gone(process)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    python = tmp_path / "python"
    with pytest.raises(VlmEvalError) as caught:
        describe_sandbox(Sandbox(python))
    assert str(caught.value) == (
        f"The sandbox's Python cannot be started: {python} (No such file or "
        "directory). --vlm-setup builds the sandbox anew, --vlm-sandbox-python takes "
        "another interpreter."
    )


def test_an_environment_without_ms_vlmeval() -> None:
    sandbox = Sandbox(Path(sys.executable))
    with pytest.raises(VlmEvalError) as caught:
        describe_sandbox(sandbox)
    sandbox.close()
    assert str(caught.value) == (
        f"ms-vlmeval cannot be used in the environment of {sys.executable}: No package "
        "metadata was found for ms-vlmeval. --vlm-setup builds the sandbox anew; "
        "--vlm-sandbox-python takes an environment in which ms-vlmeval is installed."
    )


def test_closing_ends_a_call_under_way(
    own_sandbox: Sandbox, large_table: Path, tmp_path: Path
) -> None:
    def close(done: int, total: int) -> None:
        closing = threading.Thread(target=own_sandbox.close)
        closing.start()
        closing.join()

    with pytest.raises(VlmEvalError, match=r"^Preparing Large was stopped: the run"):
        call_prepare(own_sandbox, large_table, tmp_path, on_progress=close)
    with pytest.raises(VlmEvalError, match=r"^The sandbox is closed: the run is"):
        describe_sandbox(own_sandbox)


def test_it_serves_several_threads(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(describe_sandbox, [sandbox] * 16))) == 1


def test_progress_arrives_while_the_call_runs(
    sandbox: Sandbox, large_table: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    call_prepare(
        sandbox,
        large_table,
        tmp_path,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    done, total = seen[0]
    assert 0 < done < total == large_table.stat().st_size


def test_an_interrupted_call_leaves_nothing_for_the_next(
    own_sandbox: Sandbox, large_table: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_prepare(own_sandbox, large_table, tmp_path, on_progress=interrupt)
    assert describe_sandbox(own_sandbox).ms_vlmeval


def test_a_bug_inside_keeps_its_traceback(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{"index": 1, "question": "?", "answer": "x", "image": "0" * 80}]
    table = write_table(tmp_path / "One.tsv", rows)
    prepared = prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    with pytest.raises(
        SandboxFault, match=r"(?s)Traceback.*ValueError: 1 answers, wit"
    ):
        sandbox.call(
            "score",
            {
                "info": {
                    "name": "One",
                    "class_name": "ImageVQADataset",
                    "module": "image_vqa",
                    "modality": "image",
                    "rules": "One",
                    "url": "",
                },
                "rows": str(prepared.folder / "rows.parquet"),
                "answers": [["7", "no such row"]],
            },
            task="Scoring One",
        )
    assert describe_sandbox(sandbox).ms_vlmeval


def test_a_process_that_ended_before_the_call_was_sent() -> None:
    """Its end was seen, so that the pipe is closed on this side, too."""
    helper = Helper(Path("/bin/false"))
    helper._reader.join()
    helper.send({"call": 1})
    with pytest.raises(HelperEnded, match=r"^exit code 1$"):
        helper.receive(5)
    helper.stop()
