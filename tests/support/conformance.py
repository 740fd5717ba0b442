"""Every dataset of the card through the whole chain: what is served and expected.

The seed fixtures beside the checkout have a table for each dataset, answers and the
verdict each answer must get. Here each row is made to be recognised by the model's
server, whatever prompt ms-vlmeval builds of it: by a tag in its question, or where it
has none by its image.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_vlmeval.datasets.catalog import load_card
from pytest_vlmeval.datasets.download import source_of
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import addons_for
from tests.support.run_fixtures import properties
from tests.support.sandbox_tables import FIXTURES, seed_rows

csv.field_size_limit(sys.maxsize)
HEADINGS = [
    "dataset",
    "kind",
    "ranked by",
    "without a judge",
    "with a judge",
    "add-on",
]


class Served(NamedTuple):
    """A dataset as the test serves it: `file` of a server, or in a hub's repository.

    `answers` maps what the server recognises a row by to the answer to it; `exact`
    and `judged` map the index of each row that is asked to the verdict without and
    with a judge, None where there is none.
    """

    info: DatasetInfo
    file: str
    content: bytes
    answers: Mapping[str, str]
    exact: Mapping[str, float | None]
    judged: Mapping[str, float | None]


def serve(info: DatasetInfo) -> Served:
    """Read a fixture and mark its rows."""
    if info.modality == "video":
        path = repository_folder(info) / f"{info.name}.tsv"
    else:
        path = FIXTURES / "LMUData" / f"{info.name}.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        columns, rows = list(reader.fieldnames or ()), list(reader)
    said = {str(row["index"]): row for row in seed_rows(info.name)}
    # ms-vlmeval leaves out the rows without an image.
    asked = [row for row in rows if row.get("image", info.modality == "video")]
    answers = {_mark(info.name, row): said[row["index"]]["prediction"] for row in asked}
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
    source = source_of(info, "http://mirror") or ""
    return Served(
        info=info,
        file=path.name if info.repository else source.rpartition("/")[2],
        content=out.getvalue().encode(),
        answers=answers,
        exact={row["index"]: said[row["index"]]["exact"] for row in asked},
        judged={row["index"]: said[row["index"]]["judge"] for row in asked},
    )


def repository_folder(info: DatasetInfo) -> Path:
    """Give the files that a hub has of a video dataset."""
    name = f"datasets--{info.repository.replace('/', '--')}"
    (folder,) = Path(FIXTURES, "hfcache", "hub", name, "snapshots").iterdir()
    return folder


def repository_files(served: Served) -> dict[str, bytes]:
    """Give the files of a video dataset's repository, its table marked."""
    folder = repository_folder(served.info)
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return files | {served.file: served.content}


def _mark(dataset: str, row: dict[str, str]) -> str:
    """Change a row so that its prompt is its own; give what to know it by."""
    if "question" in row:
        tag = f"[{dataset}/{row['index']}]"
        row["question"] += f" {tag}"
        return tag
    # Decoders stop at an image's end, so more bytes behind it do no harm.
    content = base64.b64decode(row["image"]) + f"{dataset}/{row['index']}".encode()
    row["image"] = base64.b64encode(content).decode()
    return hashlib.sha256(content).hexdigest()


class Case:
    """A test case of the JUnit report: its outcome, message and properties."""

    def __init__(self, case: ET.Element) -> None:
        self.properties = properties(case)
        found = [child for child in case if child.tag != "properties"]
        self.outcome = found[0].tag if found else "passed"
        self.message = found[0].attrib.get("message", "") if found else ""


def verdicts_of(cases: list[Case]) -> dict[str, float | None]:
    """Give the verdict of each sample item by its index."""
    return {
        case.properties["index"]: _verdict_of(case.properties)
        for case in cases
        if "index" in case.properties
    }


def _verdict_of(properties: Mapping[str, str]) -> float | None:
    """Read the verdict of a sample item out of its JUnit properties."""
    told = properties.get("verdict")
    if told in (None, "unscored"):
        return None
    known = {"correct": 1.0, "wrong": 0.0}
    assert told is not None
    return known[told] if told in known else float(told)


def card() -> list[str]:
    """Give the names of the card, in its order."""
    return list(load_card().by_name)


def table_row(served: Served, exact: list[Case], judged: list[Case]) -> list[str]:
    """Give a dataset's row: its kind, what ranks it, and what was found."""
    info = served.info
    told = (judged[-1].properties, exact[-1].properties)
    known = next((each for each in told if "main_metric" in each), None)
    addons = ", ".join(sorted(addons_for(info)))
    return [
        info.name,
        info.kind.replace("_", " "),
        f"{known['main_metric']}, {known['scale']}" if known else "",
        _found(exact, served.exact),
        _found(judged, served.judged),
        addons,
    ]


def _found(cases: list[Case], expected: Mapping[str, float | None]) -> str:
    score, verdicts = cases[-1], verdicts_of(cases)
    if "reference answers" in score.message:
        return f"asked; {score.message.rpartition('(')[2].removesuffix(')')}"
    if "by a judge only" in score.message:
        return "asked; needs a judge"
    if all(value is None for value in expected.values()):
        return f"{len(verdicts)} scored together"
    right = sum(verdicts[index] == value for index, value in expected.items())
    return f"{right} of {len(expected)}"


def format_table(rows: list[list[str]]) -> str:
    """Give a Markdown table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
