"""Calls of the sandbox: from threads, watched, stopped, interrupted, failing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault
from tests.support.sandbox_calls import call_prepare
from tests.support.sandbox_calls import large_table as large_table
from tests.support.sandbox_calls import own_sandbox as own_sandbox
from tests.support.sandbox_tables import describe, prepare, write_table


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
