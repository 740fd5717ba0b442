"""Every dataset of the card through the whole chain: what is served and expected.

The seed fixtures beside the checkout have a table for each dataset, answers and the
verdict each answer must get. Here each row is made to be recognised by the model's
server, whatever prompt ms-vlmeval builds of it: by a tag in its question, or where it
has none by its picture.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_vlmeval.datasets.card import load_card
from pytest_vlmeval.datasets.files import source_of
from pytest_vlmeval.records import DatasetInfo
from tests.sandbox_tables import FIXTURES, seed_rows

csv.field_size_limit(sys.maxsize)


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
    # ms-vlmeval leaves out the rows without a picture.
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
    # Decoders stop at a picture's end, so more bytes behind it do no harm.
    content = base64.b64decode(row["image"]) + f"{dataset}/{row['index']}".encode()
    row["image"] = base64.b64encode(content).decode()
    return hashlib.sha256(content).hexdigest()


def verdict_of(properties: Mapping[str, str]) -> float | None:
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
