"""From a table to samples: prompts, rows, images, the cache, and subsets of them."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from PIL import Image

from pytest_vlmeval.datasets.catalog import demo_datasets
from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.prepare import (
    IndexRow,
    Prompts,
    prepare_dataset,
    read_index,
    read_prompts,
    read_references,
    read_samples,
    read_shown,
    take_first,
)
from pytest_vlmeval.datasets.prepare import draw as draw_rows
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, PreparedDataset, PromptPart, parts_of
from pytest_vlmeval.sandbox.process import Sandbox
from pytest_vlmeval.sandbox.rows import AT_ONCE, read_frame, read_texts
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    media_of,
    prepare,
    shared_file,
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


@pytest.mark.parametrize(
    ("kind", "suffix", "media_type"),
    [
        ("PNG", ".png", "image/png"),
        ("JPEG", ".jpg", "image/jpeg"),
        ("WEBP", ".webp", "image/webp"),
        ("GIF", ".gif", "image/gif"),
        ("BMP", ".bmp", "image/bmp"),
        ("TIFF", ".tif", "image/tiff"),
    ],
)
def test_images_keep_their_bytes_and_get_their_true_type(
    sandbox: Sandbox, tmp_path: Path, kind: str, suffix: str, media_type: str
) -> None:
    data = draw(2, kind)
    rows = [{"index": "a", "question": "?", "answer": "x", "image": cell(data)}]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    (sample,) = read_samples(prepare(info, sandbox, tmp_path))
    assert sample.error is None
    assert sample.prompt[0][0].media == hashlib.sha256(data).hexdigest() + suffix
    assert sample.prompt[0][0].media_type == media_type


def test_several_images_in_a_row(sandbox: Sandbox, tmp_path: Path) -> None:
    images = [cell(draw(seed)) for seed in (1, 2, 1)]
    rows = [{"index": 1, "question": "?", "answer": "x", "image": str(images)}]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    prepared = prepare(info, sandbox, tmp_path)
    (sample,) = read_samples(prepared)
    names = [part.media for part in parts_of(sample.prompt) if part.kind == "image"]
    assert len(names) == 3
    assert names[0] == names[2]
    assert media_of(prepared) == set(names)


def test_images_in_files_beside_the_table(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(draw(1))
    rows = [
        {"index": 1, "question": "?", "answer": "x", "image_path": "images/one.png"},
        {"index": 2, "question": "?", "answer": "x", "image_path": "images/two.png"},
    ]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    first, second = read_samples(prepare(info, sandbox, tmp_path))
    assert first.prompt[0][0].media_type == "image/png"
    assert second.error is not None
    assert second.error.endswith("images/two.png: No such file or directory")


def broken_images() -> dict[str, tuple[str, str]]:
    """Give cells that hold no image, with what is said of each."""
    png, jpeg = draw(1, "PNG", (64, 64)), draw(1, "JPEG", (256, 256))
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 80
    huge = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(huge, "PNG")
    return {
        "cut PNG": (cell(png[:3000]), "image file is truncated"),
        "cut JPEG": (cell(jpeg[: len(jpeg) // 2]), "image file is truncated"),
        "no image": (cell(b"x" * 90), "its 90 bytes are not an image in JPEG, PNG"),
        "no base64": ("A" * 69, "its text is not base64 (Invalid base64-encoded"),
        "short": ("oops", "'oops' is neither base64 nor the index of a row with an "),
        "list": ("['a', b" + "]" * 60, "its list of images cannot be read ("),
        "empty list": ("[" + " " * 70 + "]", "its list of images is empty"),
        "vector": (cell(svg), "its 120 bytes are not an image in JPEG, PNG"),
        "bomb": (cell(huge.getvalue()), "it has 20000 x 20000 pixels, more than 175,"),
    }


def test_a_broken_row_fails_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    broken = broken_images()
    good = cell(draw(5))
    table = write_table(
        tmp_path / "T.tsv", choice_rows([good, *(c for c, _ in broken.values()), good])
    )
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    first, *others, last = read_samples(prepared)
    assert first.error is None
    assert last.error is None
    for number, (sample, expected) in enumerate(
        zip(others, broken.values(), strict=True), start=2
    ):
        start = f"row {number} (index {number - 1}): the image cannot be read: "
        assert sample.error is not None
        assert sample.error.startswith(start + expected[1]), sample.error
        assert sample.prompt == ()
    assert len(media_of(prepared)) == 1


def test_rotations_share_a_image_and_a_group(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [
        {**row, "index": index}
        for row, index in zip(
            choice_rows([cell(draw(1)), "7", cell(draw(2))]),
            (7, 1_000_007, 8),
            strict=True,
        )
    ]
    table = write_table(tmp_path / "T.tsv", rows)
    info = describe(table, "ImageMCQDataset", name="Own_circular")
    prepared = prepare(info, sandbox, tmp_path)
    assert [(row.index, row.group) for row in read_index(prepared)] == [
        ("7", "7"),
        ("1000007", "7"),
        ("8", "8"),
    ]
    assert len(media_of(prepared)) == 2


@pytest.mark.parametrize(
    ("name", "indexes", "category", "groups"),
    [
        (
            "MME",
            ("0", "1", "2"),
            ("color", "color", "count"),
            ("color/a.png", "color/a.png", "count/a.png"),
        ),
        (
            "HallusionBench",
            ("VD_chart_1_0_1_0", "VD_chart_1_0_1_1", "VS_chart_1_0_2_0"),
            ("VD", "VD", "VS"),
            ("chart_0_1", "chart_0_1", "chart_0_2"),
        ),
        ("POPE", ("0", "1", "2"), ("x", "x", "x"), (None, None, None)),
    ],
)
def test_what_a_metric_needs_whole_is_a_group(
    sandbox: Sandbox,
    tmp_path: Path,
    name: str,
    indexes: tuple[str, ...],
    category: tuple[str, ...],
    groups: tuple[str | None, ...],
) -> None:
    rows = [
        {
            "index": index,
            "question": "Is it red? Please answer yes or no.",
            "answer": "Yes",
            "category": each,
            "l2-category": "chart",
            "image_path": "a.png",
            "image": cell(draw(1)),
        }
        for index, each in zip(indexes, category, strict=True)
    ]
    table = write_table(tmp_path / f"{name}.tsv", rows)
    prepared = prepare(describe(table, "ImageYORNDataset"), sandbox, tmp_path)
    assert tuple(row.group for row in read_index(prepared)) == groups


def test_images_of_many_pieces_of_a_table(sandbox: Sandbox, tmp_path: Path) -> None:
    # More rows than the first piece has, and an image of which one is a repetition.
    drawn = [draw(seed) for seed in range(30)]
    cells = [*map(cell, drawn), "3", str([cell(drawn[4]), cell(drawn[5])])]
    table = write_table(tmp_path / "T.tsv", choice_rows(cells))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    shown = [
        [part.media for part in parts_of(sample.prompt) if part.kind == "image"]
        for sample in read_samples(prepared)
    ]
    names = [f"{hashlib.sha256(data).hexdigest()}.png" for data in drawn]
    assert shown == [*([name] for name in names), [names[3]], names[4:6]]
    assert media_of(prepared) == set(names)


def test_real_images(sandbox: Sandbox, tmp_path: Path) -> None:
    info = DatasetInfo(
        name="MathVision_MINI",
        class_name="MathVision",
        module="image_vqa",
        kind="vqa",
        md5="060fe4fa5d868987ce179307bd5f8a33",
    )
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    prepared = prepare_dataset(
        info,
        FileAccess(table.parent, tmp_path, allow_modified=True, offline=True),
        sandbox=sandbox,
        sandbox_fingerprint="tests",
    )
    samples = read_samples(prepared)
    assert prepared.modified
    assert len(samples) == 304
    assert not [sample.error for sample in samples if sample.error]
    for sample in samples:
        for part in parts_of(sample.prompt):
            if part.kind == "image":
                data = (prepared.folder / "media" / part.media).read_bytes()
                assert part.media.startswith(hashlib.sha256(data).hexdigest())


def row(number: int, category: str | None = None, group: str | None = None) -> IndexRow:
    return IndexRow(str(number), category, group, "A")


PLAIN = [row(n, "abc"[n % 3] if n < 90 else "d") for n in range(100)]
# Questions 0 to 9, each in four rotations that stand far apart.
CIRCULAR = [row(q + 1000 * turn, None, str(q)) for turn in range(4) for q in range(10)]


def test_first() -> None:
    assert take_first(PLAIN, 3) == PLAIN[:3]
    assert take_first(PLAIN, 1000) == PLAIN


def test_first_keeps_groups_whole() -> None:
    taken = take_first(CIRCULAR, 2)
    assert [each.index for each in taken] == ["0", "1000", "2000", "3000"]
    assert len(take_first(CIRCULAR, 5)) == 8


def test_drawn_by_category() -> None:
    drawn = draw_rows(PLAIN, 20, seed=0)
    assert Counter(each.category for each in drawn) == {"a": 6, "b": 6, "c": 6, "d": 2}
    assert [each.index for each in drawn] == sorted(
        (each.index for each in drawn), key=int
    )


def test_a_seed_can_be_repeated() -> None:
    assert draw_rows(PLAIN, 20, seed=1) == draw_rows(PLAIN, 20, seed=1)
    assert draw_rows(PLAIN, 20, seed=1) != draw_rows(PLAIN, 20, seed=2)


def test_drawing_keeps_groups_whole() -> None:
    drawn = draw_rows(CIRCULAR, 10, seed=3)
    groups = Counter(each.group for each in drawn)
    assert set(groups.values()) == {4}
    assert len(groups) == 3


@pytest.mark.parametrize("count", [100, 5000])
def test_drawing_everything(count: int) -> None:
    assert draw_rows(PLAIN, count, seed=9) == PLAIN


def test_every_sample_can_be_drawn() -> None:
    seen = {each.index for seed in range(60) for each in draw_rows(PLAIN, 20, seed)}
    assert len(seen) == 100
