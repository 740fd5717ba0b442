"""Small datasets in ms-vlmeval's TSV layout, drawn by the tests, and shared files."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import subprocess
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from PIL import Image

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.prepare import prepare_dataset
from pytest_vlmeval.records import DatasetInfo, Hub, PreparedDataset, Verdict
from pytest_vlmeval.sandbox.calls import ScoredDataset, score_in_sandbox
from pytest_vlmeval.sandbox.environment import SandboxEnvironment, ensure_environment
from pytest_vlmeval.sandbox.rows import FILE, write_rows

if TYPE_CHECKING:
    from pytest_vlmeval.records import Kind, Scoring
    from pytest_vlmeval.run.judge import Judge
    from pytest_vlmeval.sandbox.process import Sandbox

SHARED = Path(__file__).parents[3] / "shared" / "data"
FIXTURES = SHARED / "seed_fixtures"
CLASSES: dict[str, tuple[str, Kind]] = {
    "ImageMCQDataset": ("image_mcq", "multiple_choice"),
    "ImageYORNDataset": ("image_yorn", "yes_no"),
    "MMMUDataset": ("image_mcq", "multiple_choice"),
    "ImageVQADataset": ("image_vqa", "vqa"),
    "OCRBench": ("image_vqa", "vqa"),
    "MTVQADataset": ("image_vqa", "vqa"),
    "MathVision": ("image_vqa", "vqa"),
    "MathVista": ("image_vqa", "vqa"),
    "MMVet": ("image_vqa", "vqa"),
    "LLaVABench": ("image_vqa", "vqa"),
    "MMDUDataset": ("image_mt", "conversation"),
    "MMLongBench": ("mmlongbench", "vqa"),
    "ImageCaptionDataset": ("image_caption", "caption"),
    "VCRDataset": ("vcr", "vqa"),
}

Row = Mapping[str, object]


def extended_environment(
    environment: SandboxEnvironment, folder: Path, **modules: str
) -> SandboxEnvironment:
    """Make one of the user's own that has these modules beside all of another one."""
    command = [str(environment.python), "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (theirs,) = environment.python.parents[1].glob("lib/python*/site-packages")
    (packages / "theirs.pth").write_text(f"{theirs}\n")
    for name, text in modules.items():
        (packages / f"{name}.py").write_text(textwrap.dedent(text))
    return ensure_environment(
        folder, python=folder / "bin" / "python", offline=True, announce=print
    )


def draw(seed: int, kind: str = "PNG", size: tuple[int, int] = (24, 18)) -> bytes:
    """Draw an image of noise; the same bytes for the same seed."""
    noise = random.Random(seed).randbytes(3 * size[0] * size[1])
    out = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(out, kind)
    return out.getvalue()


def cell(data: bytes) -> str:
    """Write an image as a table cell holds it."""
    return base64.b64encode(data).decode()


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as a TSV; the first has all columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_rows_file(folder: Path, rows: Sequence[Row], *, own: bool = False) -> Path:
    """Write rows as a prepared dataset has them; of a published table by default."""
    table = write_table(folder / "table.tsv", rows)
    csv.field_size_limit(2**28)
    with table.open(encoding="utf-8", newline="") as file:
        names, *cells = csv.reader(file, delimiter="\t")
    texts = {name: [row[at] for row in cells] for at, name in enumerate(names)}
    read = None if own else pd.read_csv(table, sep="\t")
    table.unlink()
    write_rows(folder / FILE, texts, read)
    return folder / FILE


def choice_rows(images: list[str]) -> list[Row]:
    """Give multiple-choice rows, one for each cell."""
    return [
        {
            "index": number,
            "question": f"Question {number}?",
            "hint": "Look." if number % 2 else "",
            "A": "red",
            "B": "blue",
            "C": "" if number % 2 else "green",
            "answer": "AB"[number % 2],
            "category": ["colour", ""][number % 2],
            "image": image,
        }
        for number, image in enumerate(images)
    ]


def rows_of(answers: Sequence[str], **columns: Sequence[object]) -> list[Row]:
    """Give a row for each answer, with one cell of each further column."""
    return [
        {
            "index": number,
            "question": "What?",
            "answer": answer,
            **{name: cells[number] for name, cells in columns.items()},
            "image": cell(draw(1)),
        }
        for number, answer in enumerate(answers)
    ]


def prepare_rows(
    sandbox: Sandbox, folder: Path, class_name: str, name: str, rows: Sequence[Row]
) -> PreparedDataset:
    """Write rows as the file of a dataset that ms-vlmeval knows, and prepare it."""
    table = write_table(folder / f"{name}.tsv", rows)
    return prepare(describe(table, class_name), sandbox, folder)


def media_of(prepared: PreparedDataset) -> set[str]:
    """Give the names of all media files."""
    return {file.name for file in (prepared.folder / "media").iterdir()}


def describe(path: Path, class_name: str, name: str | None = None) -> DatasetInfo:
    """Give the record of a dataset in a file of one's own."""
    module, kind = CLASSES[class_name]
    return DatasetInfo(
        name=name or path.stem,
        class_name=class_name,
        module=module,
        kind=kind,
        path=path,
    )


def prepare(info: DatasetInfo, sandbox: Sandbox, cache_dir: Path) -> PreparedDataset:
    """Prepare a dataset whose file is on disk."""
    return prepare_dataset(
        info,
        FileAccess(cache_dir, cache_dir, offline=True, hubs=hubs_below(cache_dir)),
        sandbox=sandbox,
        sandbox_fingerprint="tests",
    )


def hubs_below(folder: Path) -> list[Hub]:
    """Give hubs that nothing is brought from, with empty caches."""
    return [
        Hub(kind="huggingface", endpoint="https://huggingface.co", cache=folder / "hf"),
        Hub(kind="modelscope", endpoint="https://modelscope.cn", cache=folder / "ms"),
    ]


def score(
    sandbox: Sandbox,
    prepared: PreparedDataset,
    answers: Iterable[tuple[object, str | Sequence[str] | None]],
    judge: Judge | None = None,
    scoring: Scoring = "published",
) -> ScoredDataset:
    """Score answers given by the row's index, in several turns as a list."""
    replies = [
        (str(index), [said] if isinstance(said, str) else said)
        for index, said in answers
    ]
    ask = None if judge is None else judge.ask
    return score_in_sandbox(sandbox, prepared, replies, judge=ask, scoring=scoring)


def values(verdicts: Iterable[Verdict]) -> dict[str, float | None]:
    """Give the value of each verdict by its index."""
    return {verdict.index: verdict.value for verdict in verdicts}


def shared_file(*parts: str) -> Path:
    """Give a file of the data beside the checkout; skips where that is absent."""
    path = SHARED.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"no {'/'.join(parts)} beside the checkout")
    return path


def seed_rows(name: str) -> list[dict[str, Any]]:
    """Give the answers of a seed fixture with the verdict each must get."""
    path = shared_file("seed_fixtures", "preds", f"{name}.json")
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows
