"""Files that were cut, or overwritten with anything: reported, never replaced."""

from __future__ import annotations

import functools
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pytest_vlmeval.datasets.own import describe_own
from pytest_vlmeval.datasets.prepare import read_index, read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.schema import SCHEMA_VERSION, metadata
from pytest_vlmeval.settings.sources import read_key
from pytest_vlmeval.settings.table import OPTIONS
from tests.support.damage import Damage, damages, few, refusal
from tests.support.own_tables import access
from tests.support.sandbox_tables import choice_rows, prepare_rows

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.process import Sandbox


# Of each table but the one that says the version.
ROWS = 59


@functools.cache
def whole_store() -> bytes:
    """Give the file of a store with rows in every table."""
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder)).close()
        file = Path(folder) / "store.sqlite"
        connection = sqlite3.connect(file)
        for table in metadata.sorted_tables:
            if table.name == "meta":
                continue
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            marks = ", ".join("?" * len(table.columns))
            for number in range(1, ROWS + 1):
                row = [_cell(column, number) for column in table.columns]
                connection.execute(
                    f"INSERT INTO {table.name} ({names}) VALUES ({marks})", row
                )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return file.read_bytes()


def _cell(column: sa.Column[object], number: int) -> object:
    if isinstance(column.type, sa.JSON):
        return f'["{number}", {{"a": 1}}]'
    if isinstance(column.type, sa.Integer | sa.Float):
        return number
    return f"text {number} " * 20


def read_all(work_dir: Path) -> dict[str, int]:
    """Open a store and read every row of it; return how many each table has."""
    store = Store(work_dir)
    counts = {}
    try:
        for table in metadata.sorted_tables:
            with store._transaction(reading=True) as connection:
                rows = connection.execute(sa.select(table)).all()
            counts[table.name] = len(rows)
        return counts
    finally:
        store.close()


def test_the_whole_store_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(whole_store())
    counts = read_all(tmp_path)
    assert counts.pop("meta") == 1
    assert set(counts.values()) == {ROWS}


@pytest.mark.slow
def test_damaged_stores_are_reported_with_their_place(
    figure: Callable[[str], None],
) -> None:
    refused = []

    @few
    @given(damages)
    def each(damage: Damage) -> None:
        refused.append(is_refused_with_its_place(damage))

    each()
    # Damages of both kinds were tried: what can be read is, and what cannot is refused.
    assert any(refused)
    assert not all(refused)
    figure(f"{len(refused)} damaged stores: {sum(refused)} refused, the rest read")


def test_a_schema_that_is_no_text_is_damage() -> None:
    """The message of SQLite has that byte in it, which Python cannot read."""

    def damage(data: bytes) -> bytes:
        return data.replace(b"CREATE TABLE", b"CREATE \x80ABLE", 1)

    assert is_refused_with_its_place(damage)


def is_refused_with_its_place(damage: Damage) -> bool:
    """Open a damaged store; what refuses it names the file and what to do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = damage(whole_store())
        (folder / "store.sqlite").write_bytes(data)
        told = refusal(lambda: read_all(folder))
        assert not told or f"{folder}" in told
        assert not told or re.search(
            r"Move the damaged file away|--vlm-work-dir|--vlm-fresh", told
        )
        # What can be recovered from the file is still there.
        left = (folder / "store.sqlite").read_bytes()
        assert len(left) >= len(data)
        assert left[4_096:] == data[4_096:] or not told
        return bool(told)


def test_a_store_of_version_2_says_how_to_go_on_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    file = tmp_path / "store.sqlite"
    write_version_2(file)
    before = dump(file)
    with pytest.raises(VlmEvalError) as caught:
        Store(tmp_path)
    assert str(caught.value) == (
        f"{file} has the schema version 2, this version of pytest-vlmeval uses "
        f"{SCHEMA_VERSION}. Choose another folder with --vlm-work-dir, or go on with "
        "the version that wrote it."
    )
    assert dump(file) == before


def dump(file: Path) -> list[str]:
    """Give all that a database holds, as SQL."""
    connection = sqlite3.connect(file)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def write_version_2(file: Path) -> None:
    """Write a store as the version before wrote it, with an answer in it."""
    connection = sqlite3.connect(file)
    connection.executescript(
        """
        PRAGMA journal_mode = WAL;
        CREATE TABLE meta (schema_version INTEGER NOT NULL);
        INSERT INTO meta VALUES (2);
        CREATE TABLE runs (run_id TEXT PRIMARY KEY, identity TEXT NOT NULL,
            generation INTEGER NOT NULL, session_id TEXT NOT NULL,
            settings JSON NOT NULL, created_at FLOAT NOT NULL,
            UNIQUE (identity, generation));
        INSERT INTO runs VALUES ('r', 'i', 1, 's', '{}', 1.5);
        CREATE TABLE plans (session_id TEXT PRIMARY KEY, run_id TEXT NOT NULL,
            scorer TEXT NOT NULL, entries JSON NOT NULL);
        CREATE TABLE claims (run_id TEXT, fingerprint TEXT, sample_index TEXT,
            owner TEXT NOT NULL, lease_until FLOAT NOT NULL,
            PRIMARY KEY (run_id, fingerprint, sample_index));
        CREATE TABLE answers (seq INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id TEXT NOT NULL, fingerprint TEXT NOT NULL,
            sample_index TEXT NOT NULL, session_id TEXT NOT NULL,
            state TEXT NOT NULL, text TEXT NOT NULL, error TEXT NOT NULL,
            attempts INTEGER NOT NULL, latency_ms FLOAT NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
            answered_at FLOAT NOT NULL);
        INSERT INTO answers VALUES
            (1, 'r', 'f', '1', 's', 'answered', 'B', '', 1, 2.5, 3, 4, 5.5);
        """
    )
    connection.close()


def test_a_damaged_prepared_dataset_says_what_to_remove(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = choice_rows(["0" * 4] * 3)
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "Own", rows)
    file = prepared.folder / "samples.parquet"
    data = file.read_bytes()

    @few
    @given(damages)
    def check(damage: Damage) -> None:
        file.write_bytes(damage(data))
        for read in (read_samples, read_index):
            told = refusal(functools.partial(read, prepared))
            assert not told or told.startswith(f"{file} is damaged or gone: ")
            assert not told or f"Remove the folder {prepared.folder}, and" in told
        assert file.read_bytes() == damage(data)

    check()
    file.unlink()
    with pytest.raises(VlmEvalError, match=r"samples\.parquet is damaged or gone"):
        prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "Own", rows)
    shutil.rmtree(prepared.folder)
    again = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "Own", rows)
    assert len(read_samples(again)) == 3


TABLE = b"question\tanswer\tA\tB\nWhat?\tA\tx\ty\nAnd?\tB\tx\ty\n"


@few
@given(damages)
def test_any_bytes_as_a_table_of_one_s_own(damage: Damage) -> None:
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "own.tsv"
        data = damage(TABLE)
        table.write_bytes(data)
        told = refusal(lambda: describe_own(str(table), access(Path(name))))
        assert not told or str(table) in told
        assert table.read_bytes() == data


@few
@given(st.binary(max_size=200))
def test_any_bytes_as_a_key_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "a.key"
        file.write_bytes(data)
        told = refusal(
            lambda: read_key(file, f"--vlm-api-key-file={file}", "VLM_API_KEY")
        )
        assert not told or f"--vlm-api-key-file={file}" in told
        assert not told or "VLM_API_KEY" in told


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_any_text_as_an_option_s_value(option: object) -> None:
    @few
    @given(st.text(max_size=60) | st.from_regex(r"[~/.+:@{}%$-]{1,9}\w{0,9}"))
    def check(text: str) -> None:
        try:
            option.parse(text)  # type: ignore[attr-defined]
        except ValueError:
            return

    check()
