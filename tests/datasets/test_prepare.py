"""From a table to samples: prompts, rows, tables that cannot be used, the cache."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.datasets.catalog import demo_datasets
from pytest_vlmeval.datasets.prepare import (
    Prompts,
    read_index,
    read_prompts,
    read_references,
    read_samples,
    read_shown,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import PreparedDataset, PromptPart, parts_of
from pytest_vlmeval.sandbox.process import Sandbox
from pytest_vlmeval.sandbox.rows import AT_ONCE, read_frame, read_texts
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    media_of,
    prepare,
    write_table,
)

if TYPE_CHECKING:
    from tests.support.sandbox_tables import Row

UNUSED = Sandbox(Path("there is no such python"))


def test_a_sample_is_what_ms_vlmeval_would_ask(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    data = draw(1, "JPEG")
    table = write_table(tmp_path / "T.tsv", choice_rows([cell(data), cell(data)]))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    first, second = read_samples(prepared)
    media = hashlib.sha256(data).hexdigest() + ".jpg"
    image = PromptPart(
        kind="image", media=media, media_type="image/jpeg", saved_as=".png"
    )
    ask = "Please select the correct answer from the options above. \n"
    assert parts_of(first.prompt) == (
        image,
        PromptPart(
            kind="text",
            text="Question: Question 0?\nOptions:\nA. red\nB. blue\nC. green\n" + ask,
        ),
    )
    assert parts_of(second.prompt) == (
        image,
        PromptPart(
            kind="text",
            text="Hint: Look.\nQuestion: Question 1?\nOptions:\nA. red\nB. blue\n"
            + ask,
        ),
    )
    assert (first.index, first.reference, first.category) == ("0", "A", "colour")
    assert (second.index, second.reference, second.category) == ("1", "B", None)
    assert (first.group, first.error, first.dataset) == (None, None, "T")
    assert media_of(prepared) == {media}
    assert (prepared.folder / "media" / media).read_bytes() == data
    assert prepared.sample_count == 2
    assert prepared.checksum == hashlib.md5(table.read_bytes()).hexdigest()


def test_a_row_without_a_image_is_left_out(sandbox: Sandbox, tmp_path: Path) -> None:
    table = write_table(tmp_path / "T.tsv", choice_rows([cell(draw(1)), ""]))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    assert [row.index for row in read_index(prepared)] == ["0"]


def test_rows_keep_their_values_without_their_images(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    odd = ["007", "NA", "=B", "a\tb\nc", ' "quoted" ', "1.50", "x" * 40_000]
    rows = [
        {"index": i, "question": text, "answer": i, "image": cell(draw(1))}
        for i, text in enumerate(odd)
    ]
    table = write_table(tmp_path / "T.tsv", rows)
    prepared = prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    expected = pd.read_csv(table, sep="\t").drop(columns="image")
    rows_file = prepared.folder / "rows.parquet"
    pd.testing.assert_frame_equal(read_frame(rows_file), expected)
    assert read_texts(rows_file)["question"] == odd


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            [{"index": 1, "qestion": "?", "image": "x"}],
            "has no column question; it has index, qestion, image. T needs index, "
            "question and image or image_path.",
        ),
        (
            [{"question": "?", "answer": "x"}],
            "has no column index and no column image; it has question, answer. T needs "
            "index, question and image or image_path.",
        ),
        (
            [{"index": i, "question": "?", "image": "x"} for i in (4, 5, 4)],
            ": rows 1 and 3 have the same index 4; each row needs one of its own.",
        ),
        (
            [{"index": 1, "question": "?", "image": ""}],
            " has no row to ask.",
        ),
    ],
)
def test_a_table_that_cannot_be_used(
    sandbox: Sandbox, tmp_path: Path, rows: list[Row], text: str
) -> None:
    table = write_table(tmp_path / "T.tsv", rows)
    with pytest.raises(VlmEvalError) as caught:
        prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    assert str(table) in str(caught.value)
    assert str(caught.value).endswith(text)
    folder = tmp_path / "prepared" / "T"
    assert [file for file in folder.iterdir() if file.suffix != ".lock"] == []


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00index", b'a\tb\n"1\t2\n3\t4\t5']
)
def test_a_file_that_is_no_table(
    sandbox: Sandbox, tmp_path: Path, content: bytes
) -> None:
    table = tmp_path / "T.tsv"
    table.write_bytes(content)
    with pytest.raises(VlmEvalError) as caught:
        prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    assert str(caught.value).startswith(
        f"{table} is not a table in ms-vlmeval's TSV layout: "
    )
    assert str(caught.value).endswith(
        "It needs tabs between the columns, UTF-8, and a first line with their names."
    )


def test_a_collection_of_others_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    info = replace(
        describe(tmp_path / "V.tsv", "ImageVQADataset"),
        module="",
        members=("V_en", "V_fr"),
    )
    with pytest.raises(VlmEvalError) as caught:
        prepare(info, sandbox, tmp_path)
    assert str(caught.value) == (
        "V is a collection of other datasets; name those instead: V_en, V_fr."
    )


def test_a_prepared_dataset_needs_no_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    table = write_table(tmp_path / "T.tsv", choice_rows([cell(draw(1))]))
    info = describe(table, "ImageMCQDataset")
    first = prepare(info, sandbox, tmp_path)
    assert prepare(info, UNUSED, tmp_path) == first
    table.write_bytes(table.read_bytes().replace(b"Question", b"Riddle"))
    with pytest.raises(VlmEvalError, match="Python cannot be started"):
        prepare(info, UNUSED, tmp_path)
    changed = prepare(info, sandbox, tmp_path)
    assert changed.fingerprint != first.fingerprint
    assert changed.fingerprint.startswith("T-")
    assert read_samples(changed) != read_samples(first)


def test_threads_prepare_it_once(sandbox: Sandbox, tmp_path: Path) -> None:
    table = write_table(tmp_path / "T.tsv", choice_rows([cell(draw(1))]))
    info = describe(table, "ImageMCQDataset")
    starts = threading.Barrier(4)

    def work(_: int) -> tuple[PreparedDataset, int]:
        starts.wait()
        prepared = prepare(info, sandbox, tmp_path)
        return prepared, (prepared.folder / "samples.parquet").stat().st_mtime_ns

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(str, pool.map(work, range(4))))) == 1


def test_a_cache_that_cannot_be_written(sandbox: Sandbox, tmp_path: Path) -> None:
    table = write_table(tmp_path / "T.tsv", choice_rows([cell(draw(1))]))
    cache = tmp_path / "cache"
    cache.touch()
    with pytest.raises(VlmEvalError) as caught:
        prepare(describe(table, "ImageMCQDataset"), sandbox, cache)
    assert str(caught.value) == (
        f"T cannot be prepared in {cache / 'prepared' / 'T'}: Not a directory. "
        "--vlm-cache-dir takes another folder."
    )
    assert prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path / "other")


@pytest.mark.parametrize("name", ["DemoChoice", "DemoYesNo", "DemoOpen"])
def test_the_bundled_datasets(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    samples = read_samples(prepare(demo_datasets()[name], sandbox, tmp_path))
    assert len(samples) >= 30
    for sample in samples:
        assert sample.error is None
        assert sample.reference
        assert [part.kind for part in parts_of(sample.prompt)] == ["image", "text"]


def test_names_are_read_without_prompts(sandbox: Sandbox, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = write_table(tmp_path / "T.tsv", choice_rows([cell(draw(1))]))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    known = read_index(prepared), list(read_references(prepared.folder))
    samples = prepared.folder / "samples.parquet"
    # Prompts are most of it; collecting 30,000 samples does not wait for them.
    pq.write_table(pq.read_table(samples).drop_columns(["prompt"]), samples)
    assert (read_index(prepared), list(read_references(prepared.folder))) == known
    with pytest.raises(ValueError, match="is shorter than"):
        read_samples(prepared)


def test_more_rows_than_are_written_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    count = AT_ONCE + 3
    images = [cell(draw(seed)) for seed in range(2)]
    rows = choice_rows([images[number % 2] for number in range(count)])
    # Letters of one, three and four bytes, and in every other row no category.
    rows[AT_ONCE] = {**rows[AT_ONCE], "question": "看图 🖼 ?"}
    table = write_table(tmp_path / "T.tsv", rows)
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    samples = read_samples(prepared)
    assert [sample.index for sample in samples] == [str(n) for n in range(count)]
    assert "看图 🖼 ?" in samples[AT_ONCE].prompt[0][1].text
    assert samples[AT_ONCE].category == "colour"
    assert samples[AT_ONCE + 1].category is None
    assert all(sample.reference == "AB"[int(sample.index) % 2] for sample in samples)
    # The same images have the same number.
    shown = read_shown(prepared)
    assert shown == [shown[number % 2] for number in range(count)]
    assert shown[0] != shown[1]
    prompts = Prompts(prepared)
    assert [prompts.text(each.index) for each in samples] == list(
        read_prompts(prepared)
    )
