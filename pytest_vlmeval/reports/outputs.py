"""The result tables of a task file, where EvalScope's and VLMEvalKit's users look."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.reports.export import name_file
from pytest_vlmeval.sandbox.environment import write_held

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score

# The columns that only a table from here has, behind ms-vlmeval's own.
OWN = ("samples", "answered", "run")
EXACT = " (exact matching)"


def write_result_tables(
    scores: Iterable[Score], folder: Path, *, model: str, run_id: str
) -> list[str]:
    """Write MODEL/MODEL_DATASET_acc.csv of each score; return what to say of them.

    A file that another program wrote is never replaced: the table is then written
    beside it. Raises `VlmEvalError` for a table that cannot be written.
    """
    name = name_file(model)
    place = folder / name
    lines = []
    written = 0
    for score in scores:
        path = place / f"{name}_{name_file(score.dataset)}_acc.csv"
        content = format_result(score, run_id)
        if not _may_write(path):
            kept = path
            path = path.with_stem(f"{path.stem}_vlmeval")
            lines.append(
                f"{kept} is of another program and stays as it is; the result table of "
                f"{score.dataset} is {path.name} beside it"
            )
        if not _may_write(path):
            raise VlmEvalError(
                f"The result table of {score.dataset} is not written: {path} and "
                f"{kept.name} are of another program. Move them, or give another "
                "work_dir; the run store has the score."
            )
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_held(path, content.encode("utf-8"), mode=0o644)
        except OSError as error:
            raise VlmEvalError(
                f"The result table {path} cannot be written ({error.strerror}). Make "
                "its folder writable, or give another work_dir; the run store has the "
                "score."
            ) from None
        written += 1
    if written:
        where = f"{place}/{name}_*_acc.csv"
        one = written == 1
        lines.append(
            f"1 result table: {path}" if one else f"{written} result tables: {where}"
        )
    return lines


def _may_write(path: Path) -> bool:
    """Return whether there is no file, or one that `format_result` made."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.readline(1_000_000)
    except FileNotFoundError:
        return True
    except OSError:
        # What it is shows when it is written.
        return True
    return tuple(head.rstrip("\r\n").split(",")[-len(OWN) :]) == OWN


def format_result(score: Score, run_id: str) -> str:
    """Return the table as CSV, with ms-vlmeval's names and values.

    It has a row for each split or subject, as ms-vlmeval's own tables do: "none" stands
    in `split` if there is no other.
    """
    rows: dict[str, dict[str, float]] = {}
    has_parts = "/" in score.main_metric
    for name, value in _metrics(score).items():
        label, slash, column = name.partition("/") if has_parts else ("", "", name)
        if not slash:
            label, column = "none", name
        rows.setdefault(label, {})[column] = value
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(
        out, ["split", *columns, *OWN], lineterminator="\n", restval=""
    )
    writer.writeheader()
    own = {"samples": score.samples, "answered": score.answered, "run": run_id}
    for label, row in rows.items():
        writer.writerow({**row, "split": label, **own})
    return out.getvalue()


def _metrics(score: Score) -> Mapping[str, float]:
    """Return the metrics by ms-vlmeval's names, the main one first."""
    main = score.main_metric
    found = {main.removesuffix(EXACT): score.metrics.get(main, score.value)}
    return found | {
        name: value for name, value in score.metrics.items() if name != main
    }
