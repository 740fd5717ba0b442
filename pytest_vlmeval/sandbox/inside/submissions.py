"""Answers to questions whose references are secret, as their servers take them."""

from __future__ import annotations

import json
import string
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.own import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

XLSX_MOST_CHARACTERS = 32_767


class Format(NamedTuple):
    """A kind of file, what to call it, and what writes it."""

    suffix: str
    name: str
    write: Callable[[pd.DataFrame, Path], None]


def write_submission(
    info: dict[str, str], rows: str, answers: list[tuple[str, str]], folder: str
) -> dict[str, str]:
    """Write a dataset's answers, each an index and a text, into `folder`.

    The file has the rows that were answered, in the dataset's order. Gives its name
    and what its format is called.
    """
    texts = dict(answers)
    table = read_rows(Path(rows), info)
    table = table[[str(index) in texts for index in table["index"]]].copy()
    if len(table) != len(texts):  # the class makes rows of its own
        table = pd.DataFrame({"index": list(texts)})
    table["prediction"] = [texts[str(index)] for index in table["index"]]
    form = _format_of(info)
    path = Path(folder, info["name"] + form.suffix)
    form.write(table, path)
    return {"file": path.name, "format": form.name}


def _format_of(info: dict[str, str]) -> Format:
    name = info["rules"] if info["class_name"] in FAMILIES else ""
    if name.startswith(("DocVQA", "InfoVQA")):
        return Format(".json", "the Robust Reading Competition's JSON", _write_reading)
    if name.startswith("MMMU"):
        return Format(".json", "EvalAI's JSON for MMMU", _write_mmmu)
    if name.startswith("MMBench"):
        return Format(".xlsx", "the workbook of MMBench's server", _write_workbook)
    return Format(".tsv", "ms-vlmeval's table of predictions", _write_table)


def _write_reading(table: pd.DataFrame, path: Path) -> None:
    # ms-vlmeval's tables have the competition's numbers as their index.
    entries = [
        {"questionId": int(number), "answer": text}
        for number, text in zip(table["index"], table["prediction"], strict=True)
    ]
    _write_json(entries, path)


def _write_mmmu(table: pd.DataFrame, path: Path) -> None:
    """Write letters where there are options, as utils/result_transfer.py:17 does.

    What names no option stays as it is, where ms-vlmeval writes `false`.
    """
    matching: Any = import_module("vlmeval.utils.matching_util")
    entries = {}
    for _, row in table.iterrows():
        options = {
            letter: row[letter]
            for letter in string.ascii_uppercase
            if letter in row and not pd.isna(row[letter])
        }
        said = row["prediction"]
        letter = matching.can_infer(said, options) if options else ""
        entries[str(row["id"])] = letter or said
    _write_json(entries, path)


def _write_json(entries: object, path: Path) -> None:
    path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")


def _write_workbook(table: pd.DataFrame, path: Path) -> None:
    """Write what the format can hold: no formulas, and no more than a cell takes."""
    table["prediction"] = [text[:XLSX_MOST_CHARACTERS] for text in table["prediction"]]
    options = {"strings_to_formulas": False, "strings_to_urls": False}
    with pd.ExcelWriter(
        path, engine="xlsxwriter", engine_kwargs={"options": options}
    ) as writer:
        table.to_excel(writer, index=False)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False, encoding="utf-8")
