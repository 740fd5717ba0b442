"""Hostile answers, replies and cells: nothing runs, hangs or counts as right."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.process import SandboxFault
from tests.support.conformance import card
from tests.support.hostile import LONG_BYTES, Hostile, corpus
from tests.support.hostile_scoring import (
    Cells,
    Fair,
    check_hostile,
    replies_of,
    score_with,
    seed_dataset,
)
from tests.support.sandbox_tables import (
    CLASSES,
    FIXTURES,
    describe,
    prepare,
    rows_of,
    write_table,
)

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.hostile_scoring import Judge

    SandboxOf = Callable[[str], Sandbox]
    from pytest_vlmeval.sandbox.process import Sandbox

pytestmark = pytest.mark.slow
needs_seeds = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
SECRET = {"DocVQA_TEST", "InfoVQA_TEST", "MLLMGuard_DS", "MMMU_TEST"}
NEEDING_A_JUDGE = {"LLaVABench", "MMBench-Video", "MMLongBench_DOC", "MMVet"}
# What needs environments of its own, and the larger of two that differ in nothing
# else, where each text is parsed as a formula.
WITH_ADDONS = {"COCO_VAL", "MMLongBench_DOC", "MathVision"}
# One of a kind gets texts of megabytes.
LONG = {
    "COCO_VAL",
    "DocVQA_VAL",
    "MMBench_DEV_EN",
    "MMMU_DEV_VAL",
    "MMStar",
    "MME",
    "MMVet",
    "MTVQA_TEST",
    "MathVision_MINI",
    "MathVista_MINI",
    "OCRBench",
    "TextVQA_VAL",
    "VCR_EN_EASY_100",
    "Video-MME",
}
NUMBERS = ["7317", "8317"]
RIGHT = ["7317"] * 2


def texts_for(name: str, marker: Path) -> list[Hostile]:
    """Give the texts for a dataset, the longest of them where it is one of a kind."""
    return corpus(marker, long_bytes=LONG_BYTES if name in LONG else 20_000)


def marked(names: Iterable[str], make: object) -> Iterator[object]:
    """Give parameters; datasets that only run with add-ons are marked so."""
    for name in names:
        alone = name in WITH_ADDONS or name.startswith("VCR_")
        marks = [pytest.mark.addons] if alone else []
        kind = getattr(make, "__name__", "").removesuffix("_for")
        yield pytest.param(name, make, marks=marks, id=f"{name}-{kind}")


# VCR's scoring asks no judge.
JUDGED = [name for name in card() if name not in SECRET and not name.startswith("VCR_")]
UNJUDGED = [name for name in card() if name not in SECRET | NEEDING_A_JUDGE]


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DatasetInfo]:
    """Give what is known of every dataset."""
    folder = tmp_path_factory.mktemp("catalog")
    return load_catalog(sandbox_environment, folder)


@pytest.fixture
def marker() -> Iterator[Path]:
    """Give the file that no text may make, with no digit or word in its name."""
    name = "".join(random.choices("jkqvwxz", k=16))
    path = Path(tempfile.gettempdir(), f"marker-{name}")
    yield path
    path.unlink(missing_ok=True)


def test_the_corpus_is_large_and_always_the_same(marker: Path) -> None:
    texts = corpus(marker, long_bytes=1_000)
    assert texts == corpus(marker, long_bytes=1_000)
    assert len(texts) >= 200
    assert len({text.kind for text in texts}) == 15
    assert len(set(texts)) >= len(texts) - 5
    assert max(len(text.text) for text in corpus(marker)) >= 10 * 2**20 - 10


def test_the_marker_would_be_made(marker: Path) -> None:
    texts = [it.text for it in corpus(marker, long_bytes=9) if it.kind == "import"]
    eval(texts[0])
    assert marker.is_file()


COUNTS = {"category": ["a"] * 2, "split": ["val"] * 2}
OPTIONS = {"A": ["red"] * 2, "B": ["blue"] * 2, **COUNTS}
KINDS = ["Regular Text Recognition"] * 2
TYPED = {
    "question_type": ["free_form"] * 2,
    "answer_type": ["integer"] * 2,
    "choices": ["[]"] * 2,
    "precision": ["0"] * 2,
    "answer_option": NUMBERS,
    "skills": ["['arithmetic']"] * 2,
    "task": ["sums"] * 2,
}
# Name, class, references and further columns, fair answers: one of each way to score.
TABLES: list[tuple[str, str, Sequence[str], dict[str, list[str]], Sequence[str]]] = [
    ("MMStar", "ImageMCQDataset", "AB", OPTIONS, "AA"),
    ("Own_circular", "ImageMCQDataset", "AB", OPTIONS, "AA"),
    ("MMMU_DEV_VAL", "MMMUDataset", "AB", OPTIONS, "AA"),
    ("POPE", "ImageYORNDataset", ["Yes", "No"], COUNTS, ["Yes"] * 2),
    ("DocVQA_VAL", "ImageVQADataset", ["['seven']", "['okapi']"], {}, ["seven"]),
    ("ChartQA_TEST", "ImageVQADataset", NUMBERS, COUNTS, RIGHT),
    ("Own", "ImageVQADataset", ["seven", "eight"], {}, ["seven"] * 2),
    ("MathVision", "MathVision", NUMBERS, {"choices": ["[]"] * 2, **COUNTS}, RIGHT),
    ("MathVista_MINI", "MathVista", NUMBERS, TYPED, RIGHT),
    (
        "OCRBench",
        "OCRBench",
        ["['seven']", "['okapi']"],
        {"category": KINDS},
        ["seven"],
    ),
    (
        "MTVQA_TEST",
        "MTVQADataset",
        ["seven", "okapi"],
        {"category": ["FR"] * 2},
        ["seven"],
    ),
]


def own_tables(folder: Path) -> Iterator[Fair]:
    """Give small datasets that the test makes."""
    for name, class_name, references, columns, answers in TABLES:
        assert class_name in CLASSES
        plain = [
            {key: str(cell) for key, cell in row.items() if key != "image"}
            for row in rows_of(references, **columns)
        ]
        info = describe(folder / f"{name}.tsv", class_name)
        said = dict(zip("01", [*answers, "nothing"], strict=False))
        yield Fair(info, plain, said, {"0": 1.0, "1": 0.0})


def test_hostile_answers_to_tables_of_the_test(
    sandbox: Sandbox, tmp_path: Path, marker: Path
) -> None:
    for fair in own_tables(tmp_path):
        texts = corpus(marker, long_bytes=20_000)
        if fair.info.class_name == "MathVision":
            texts = [it for it in texts if len(it.text) < 100]
        found, hostile = score_with(sandbox, tmp_path, fair, texts)
        check_hostile(fair, found, hostile)
    assert not marker.exists()


def test_hostile_cells_of_tables_of_the_test(
    sandbox: Sandbox, tmp_path: Path, marker: Path
) -> None:
    for fair in own_tables(tmp_path):
        texts = [it for it in corpus(marker, long_bytes=9) if len(it.text) < 1_000]
        for error in Cells.of(fair, texts).score(sandbox, tmp_path):
            assert not error.startswith(f"Scoring {fair.info.name} "), error
        # What was refused left nothing behind: fair rows are scored as ever.
        found, _ = score_with(sandbox, tmp_path, fair, [])
        check_hostile(fair, found, {})
    assert not marker.exists()


def answers_for(name: str, marker: Path) -> tuple[list[Hostile], None]:
    """Give hostile answers, and no judge to read them."""
    return texts_for(name, marker), None


def replies_for(name: str, marker: Path) -> tuple[list[Hostile], Judge]:
    """Give answers that only a judge can read, and a judge of hostile replies."""
    texts = corpus(marker, long_bytes=20_000)
    if "MathVision" in name:
        texts = [it for it in texts if len(it.text) < 100]
    unreadable = [Hostile("unreadable", "I cannot tell")] * len(texts)
    return unreadable, replies_of(it.text for it in texts)


@needs_seeds
@pytest.mark.parametrize(
    ("name", "make"),
    [*marked(UNJUDGED, answers_for), *marked(JUDGED, replies_for)],
)
def test_hostile_texts(
    sandbox_of: SandboxOf,
    catalog: dict[str, DatasetInfo],
    tmp_path: Path,
    marker: Path,
    name: str,
    make: Callable[[str, Path], tuple[list[Hostile], Judge | None]],
) -> None:
    fair = seed_dataset(catalog[name])
    texts, judge = make(name, marker)
    sandbox = sandbox_of(fair.info.class_name)
    found, hostile = score_with(sandbox, tmp_path, fair, texts, judge)
    if judge is None:
        check_hostile(fair, found, hostile)
    else:
        told = [each for each in found.verdicts if each.index in hostile]
        assert not [each for each in told if each.value]
    assert not marker.exists()


# One of each class that prepares images, and of each way to score in a class.
FAMILIES = [
    *("MMBench_DEV_EN", "CCBench", "MMStar", "MMT-Bench_VAL", "MMMU_DEV_VAL", "MME"),
    *("HallusionBench", "POPE", "OCRVQA_TEST", "TextVQA_VAL", "DocVQA_VAL"),
    *("ChartQA_TEST", "OCRBench", "MTVQA_TEST", "MathVista_MINI", "MathVision_MINI"),
    *("LLaVABench", "MMVet"),
    pytest.param("COCO_VAL", marks=pytest.mark.addons),
    pytest.param("VCR_EN_EASY_100", marks=pytest.mark.addons),
    pytest.param("MMLongBench_DOC", marks=pytest.mark.addons),
]
# Of the corpus each third text, so that every kind is there and in several columns.
EACH = 3

Row = dict[str, str]


def halve(rows: Sequence[Row], attempt: Callable[[Sequence[Row]], None]) -> list[str]:
    """Try all rows together, then by halves; give what is said of those that fail."""
    try:
        attempt(rows)
    except (VlmEvalError, SandboxFault) as error:
        if len(rows) == 1:
            return [str(error)]
        middle = len(rows) // 2
        return halve(rows[:middle], attempt) + halve(rows[middle:], attempt)
    return []


@needs_seeds
@pytest.mark.parametrize("name", FAMILIES)
def test_hostile_cells_of_a_dataset(
    sandbox_of: Callable[[str], Sandbox],
    catalog: dict[str, DatasetInfo],
    tmp_path: Path,
    marker: Path,
    name: str,
) -> None:
    with (FIXTURES / "LMUData" / f"{name}.tsv").open(
        encoding="utf-8", newline=""
    ) as file:
        rows: list[Row] = list(csv.DictReader(file, delimiter="\t"))
    texts = [it for it in corpus(marker, long_bytes=9) if len(it.text) < 1_000][::EACH]
    # As a file of one's own: the published one has another checksum.
    info = describe(tmp_path / f"{name}.tsv", catalog[name].class_name)
    hostile = Cells.of(Fair(info, rows, {}, {}), texts).copies
    sandbox = sandbox_of(info.class_name)
    scored: set[str] = set()

    def attempt(copies: Sequence[Row]) -> None:
        write_table(tmp_path / f"{name}.tsv", [*rows, *copies])
        prepared = prepare(info, sandbox, tmp_path)
        samples = read_samples(prepared)
        # A row that cannot be asked says so by its number; the others are there.
        assert all(it.error is None or it.error.startswith("row ") for it in samples)
        asked = [it.index for it in samples if not it.error]
        answers = [(index, "A") for index in asked]
        score_in_sandbox(sandbox, prepared, answers, judge=replies_of(["8 8"]))
        scored.update(asked)

    refused = halve(hostile, attempt)
    for said in refused:
        # A reason, and neither a dead process nor one that took too long.
        assert not said.startswith((f"Preparing {name} ", f"Scoring {name} ")), said
    # Many cells are texts like any other; images and lists make their row useless.
    assert len(scored & {row["index"] for row in hostile}) > len(hostile) / 4, refused[
        :3
    ]
    assert not marker.exists()
