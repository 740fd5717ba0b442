"""Prediction files as ms-vlmeval lays them out, for tools that read those.

`MODEL/MODEL_DATASET.tsv` (or .xlsx) has the dataset's rows without their pictures and a
column `prediction`; in ms-vlmeval 0.0.20 `infer_data_job` writes it (inference.py).
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import NO_REPLY
from pytest_vlmeval.reports.html import write_whole
from pytest_vlmeval.sandbox.rows import FILE, read_texts

if TYPE_CHECKING:
    from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport

# What a cell of Excel holds at most, and what it cannot hold.
XLSX_LONGEST = 32_767
_XLSX_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff￾￿]")
_SEPARATORS = re.compile('[\t\r\n"]')
NEEDS_OPENPYXL = (
    "--vlm-predictions=xlsx needs openpyxl, which is not installed: pip install "
    "openpyxl, or write --vlm-predictions=tsv."
)

Table = list[list[str]]


def write_predictions(
    report: RunReport, folder: Path, kind: Literal["tsv", "xlsx"]
) -> list[str]:
    """Write a file for each dataset; return what could not be written as it is."""
    model = re.sub(r"[^\w.()+-]", "_", report.model)
    notes = []
    for dataset in report.datasets:
        table = _table(dataset, str(report.settings.get("backend", "")))
        if table is None:
            notes.append(
                f"{dataset.dataset}: no prediction file, because its prepared data is "
                "gone from --vlm-cache-dir"
            )
            continue
        path = folder / model / f"{model}_{dataset.dataset}.{kind}"
        if kind == "tsv":
            write_whole(path, _as_tsv(table))
        else:
            content, changed = _as_xlsx(table)
            write_whole(path, content)
            if changed:
                notes.append(
                    f"{path.name}: {changed} cells hold what Excel cannot, and are cut "
                    "or have signs replaced; --vlm-predictions=tsv keeps them"
                )
    return notes


def _table(dataset: DatasetReport, backend: str) -> Table | None:
    """Return the selected rows with their predictions, as text."""
    file = dataset.folder and dataset.folder / FILE
    if file is None or not file.is_file():
        return None
    samples = {each.index: each for each in dataset.samples}
    texts = read_texts(file)
    rows = [
        [*row, _prediction(samples[index], backend)]
        for index, row in zip(
            texts["index"], zip(*texts.values(), strict=True), strict=True
        )
        if index in samples
    ]
    return [[*texts, "prediction"], *rows]


def _prediction(sample: SampleReport, backend: str) -> str:
    """Return the reply, or the list of them where the prompt has several turns."""
    answer, turns = sample.answer, max(1, len(sample.prompt))
    if answer is None or answer.state == "failed":
        earlier = replace(answer, text="").predictions(backend) if answer else ()
        asked = [*earlier[:-1], NO_REPLY]
    else:
        asked = list(answer.predictions(backend))
    # There is one for each turn, also for those that were never asked.
    asked += [NO_REPLY] * (turns - len(asked))
    return asked[0] if turns == 1 else str(asked)


def _as_tsv(table: Table) -> bytes:
    lines = ("\t".join(map(_quoted, row)) + "\n" for row in table)
    return "".join(lines).encode("utf-8", "replace")


def _quoted(cell: str) -> str:
    """Put a cell into quotes if need be: Python's csv forgets lone carriage returns."""
    if _SEPARATORS.search(cell) is None:
        return cell
    return '"' + cell.replace('"', '""') + '"'


def _as_xlsx(table: Table) -> tuple[bytes, int]:
    """Return the workbook, and how many cells had to change."""
    try:
        from openpyxl import Workbook
    except ImportError:
        raise VlmEvalError(NEEDS_OPENPYXL) from None
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    changed = 0
    for row in table:
        cells = [_XLSX_FORBIDDEN.sub("�", cell)[:XLSX_LONGEST] for cell in row]
        changed += sum(one != other for one, other in zip(cells, row, strict=True))
        sheet.append([_text_cell(sheet, cell) for cell in cells])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue(), changed


def _text_cell(sheet: object, text: str) -> object:
    """Return a cell that holds a text, also one that begins like a formula."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, value=text)
    cell.data_type = "s"
    return cell
