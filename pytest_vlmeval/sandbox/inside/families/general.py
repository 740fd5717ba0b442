"""Any class of ms-vlmeval: its own `evaluate` is run, and read for what it found.

How a class is added: give its row in `pictures.py` (modules of several classes of
images), `benches.py` (classes of images with a module of their own) or `clips.py`
(videos and texts), and a table with its columns in `tests/support/schemas/`, which
shows that the metrics are those that its `evaluate` gives without this package. A row
says

- the `metric` that ranks the dataset, as `metrics.flatten` names it, and the `factor`
  that brings it to a `scale` of 0 to 100 (or `main`, a function, where the name
  differs between datasets);
- the `judge` that it needs: "unused", "optional", "partial" or "required";
- the column of `reference` answers if it is not `answer`, "" if there is none;
- where each answer's points are, if that is not found: the `column`, their most
  `points`, and the `digits` to which metrics are rounded.

A class whose `evaluate` cannot be run gets its reason in `REFUSED` of the same module.

Verdicts come from a column with a cell for each answer that `evaluate` writes, if its
mean is the main metric to the last digit. Otherwise no answer has a verdict.
"""

from __future__ import annotations

import math
import pickle
import tempfile
import traceback
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families.common import Outcome, verdict
from pytest_vlmeval.sandbox.inside.job import ContainedError, JudgedUnit
from pytest_vlmeval.sandbox.inside.judging import in_units
from pytest_vlmeval.sandbox.inside.metrics import flatten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_vlmeval.sandbox.inside.families.common import Info, Verdict
    from pytest_vlmeval.sandbox.inside.families.family import Family
    from pytest_vlmeval.sandbox.inside.job import Job

# What classes call the points of an answer, those that mean nothing else first.
COLUMNS = (
    *("hit", "score", "correct", "is_correct", "match", "eval_match", "eval_score"),
    *("acc", "accuracy", "eval_result", "result", "judge", "is_right", "right"),
)
# What they call the option or the text that they read in an answer.
READ = (
    *("extracted", "extracted_answer", "extract_answer", "extracted_pred"),
    *("pred", "res", "parsed_pred", "answer_extracted"),
)
# The main metric of a class without a row, in this order.
MAIN = ("Overall", "overall", "acc", "accuracy", "Average", "average", "score")
SPLITS = ("ALL", "test", "validation", "val", "dev")
TOGETHER = (
    "answers are scored all together: ms-vlmeval writes no column with the points of "
    "each answer whose mean is {metric}"
)
# Digits after the point of numbers that are taken for rounded ones.
ROUNDED = range(2, 7)
CLOSE = 1e-9


def evaluate_general(dataset: Any, answers: str, job: Job) -> Outcome:
    """Run a class's own `evaluate`; raises VlmEvalError with what it raised, and where.

    The metrics are those of what it returns, or where that has no number of what it
    wrote; verdicts come from a column that it wrote.
    """
    class_name = type(dataset).__name__
    family = job.family
    assert family is not None
    told = job.ask is not None or family.judge == "unused"
    model = family.model or job.method if told else job.method
    more = dict(family.exact_by if job.ask is None else family.judged_by)
    asked = job.tables[answers]
    named = {} if family.unnamed else {"model": model}
    # Some go by the place of a row among all (dataset/groundingme.py:114).
    dataset.data = _only(dataset.data, asked)
    job.rows = _only(job.rows, asked)
    table = str(job.folder / f"{dataset.dataset_name}.tsv")
    if table in job.tables:
        job.tables[table] = job.rows
    with _confined(job), in_units():
        try:
            result = dataset.evaluate(answers, nproc=1, **named, **more)
        except (Exception, SystemExit) as error:
            raise VlmEvalError(_explain(class_name, error, job)) from error
    if job.refused:
        raise VlmEvalError(
            f"the evaluate of ms-vlmeval's {class_name} tried what the sandbox does "
            f"not allow: {job.refused[0]}. Its numbers may lack what that gave, so "
            "there is no score."
        )
    written = [*_written(job, answers)]
    metrics = _metrics_of(result, written, asked, job)
    if not metrics:
        raise VlmEvalError(
            f"the evaluate of ms-vlmeval's {class_name} gave no number: it returned "
            f"{_describe(result)}, and wrote "
            f"{', '.join(name for name, _ in written) or 'nothing'}."
        )
    job = replace(job, units=_by_row(job))
    info = {
        "name": dataset.dataset_name,
        "rules": dataset.dataset_name,
        "class_name": class_name,
    }
    return _with_verdicts(info, family, job, metrics, _tables(result, written), asked)


def _only(rows: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that were answered, all where a class names them anew."""
    known = {str(index) for index in asked["index"]}
    kept = rows[[str(index) in known for index in rows["index"]]]
    return kept.reset_index(drop=True) if len(kept) == len(asked) else rows


def _with_verdicts(
    info: Info,
    family: Family,
    job: Job,
    metrics: dict[str, float],
    tables: Sequence[pd.DataFrame],
    asked: pd.DataFrame,
) -> Outcome:
    main, value = _rank(info, family, metrics)
    indexes = [str(index) for index in asked["index"]]
    points = _find_points(family, tables, asked, metrics[main], value, metrics)
    notes = []
    if job.loose.failures:
        notes.append(
            f"the judge gave no reply to {job.loose.failures} of its questions, which "
            "ms-vlmeval's class then scored as it does"
        )
    if points is None:
        reason = TOGETHER.format(metric=main)
        notes.append(reason)
        verdicts = [verdict(job, index, None, None, reason) for index in indexes]
        for each in verdicts:
            if each["state"] == "judged":
                each["state"] = "matched"  # a part of the whole, and not undecided
        return Outcome(metrics, verdicts, tuple(notes))
    if job.best_case:
        undecided = {key for key, unit in job.units.items() if unit.unusable}
        gained = sum(
            1 - value
            for index, value in zip(indexes, points.values, strict=True)
            if index in undecided
        )
        full = family.scale / family.factor
        metrics = {**metrics, main: metrics[main] + full * gained / len(indexes)}
    verdicts = [
        verdict(job, index, value, said, reason)
        for index, value, said, reason in zip(
            indexes, points.values, points.read, points.reasons, strict=True
        )
    ]
    return Outcome(metrics, verdicts, tuple(notes))


def _rank(info: Info, family: Family, metrics: dict[str, float]) -> tuple[str, float]:
    if family.metric and family.metric not in metrics:
        raise VlmEvalError(
            f"the evaluate of ms-vlmeval's {info['class_name']} gave no "
            f"{family.metric!r}, by which {info['name']} is ranked; it gave "
            f"{', '.join(list(metrics)[:12])}. Some classes need all rows of their "
            "dataset: leave out --vlm-limit and --vlm-sample."
        )
    return family.rank(info, metrics, [])


def main_of_any(
    info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by what a class calls its whole, else by the only metric.

    A number up to 1 is a share. Raises VlmEvalError where there are several.
    """
    names = [*MAIN, *(f"{split}/{name}" for split in SPLITS for name in MAIN)]
    ends = [
        name
        for word in MAIN
        for name in metrics
        if name.rpartition("/")[2] == word or name.partition("/")[0] == word
    ]
    for name in (*(name for name in names if name in metrics), *ends, *metrics):
        value = metrics[name]
        if 0 <= value <= 100:
            return name, value * 100 if value <= 1 else value
    raise VlmEvalError(
        f"{info['name']}: none of the metrics of ms-vlmeval's {info['class_name']} is "
        f"from 0 to 100: {', '.join(list(metrics)[:12])}"
    )


def main_of_splits(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the whole, a share, or by the split that ms-vlmeval ranks by."""
    names = ["Overall", *(f"{split}/Overall" for split in SPLITS)]
    others = [name for name in metrics if name.endswith("/Overall")]
    name = next(name for name in (*names, *others) if name in metrics)
    return name, metrics[name] * 100


def _by_row(job: Job) -> dict[str, JudgedUnit]:
    """Return what was asked of the judge about each row, all its units in one."""
    found: dict[str, JudgedUnit] = {}
    for units in (job.units, job.loose.units):
        for key, unit in units.items():
            index = key if key in job.asked else key.rpartition("/")[0]
            known = found.setdefault(index, JudgedUnit(index))
            known.exchanges += unit.exchanges
            known.unusable |= unit.unusable
    return {index: unit for index, unit in found.items() if unit.exchanges}


class _Points(NamedTuple):
    """What each answer got, from 0 to 1, and what was read in it and said of it."""

    values: list[float]
    read: list[str | None]
    reasons: list[str]


def _find_points(
    family: Family,
    tables: Sequence[pd.DataFrame],
    asked: pd.DataFrame,
    metric: float,
    value: float,
    metrics: dict[str, float],
) -> _Points | None:
    """Return the points of each answer whose mean is the main metric; None if none."""
    known = {str(name) for name in asked.columns}
    digits = _digits_of(metrics, family)
    for table in tables:
        rows = _by_answer(table, asked)
        if rows is None:
            continue
        own = [name for name in rows.columns if str(name) not in known]
        names = [family.column] if family.column else list(COLUMNS)
        for name in names:
            if name not in rows or (name not in own and not family.column):
                continue
            cells = _as_points(rows[name], family.points)
            if cells is not None and _is_mean(cells, family, value, metric, digits):
                return _Points(cells, _read_in(rows, own), _column_of(rows, own, "log"))
    return None


def _is_mean(
    cells: list[float], family: Family, value: float, metric: float, digits: int | None
) -> bool:
    mean = math.fsum(cells) / len(cells)
    if math.isclose(mean * family.scale, value, rel_tol=CLOSE, abs_tol=CLOSE):
        return True
    if digits is None or not metric or not value:
        return False
    # What the mean is on the scale of the metric.
    on_scale = mean * family.scale * metric / value
    return bool(round(on_scale, digits) == metric)


def _digits_of(metrics: dict[str, float], family: Family) -> int | None:
    """Return to how many digits a class rounds; None where it does not show."""
    if family.digits is not None:
        return family.digits
    most = max(len(repr(each).partition(".")[2]) for each in metrics.values())
    return most if most in ROUNDED else None


def _as_points(column: pd.Series[Any], most: float) -> list[float] | None:
    cells = []
    for cell in column:
        if isinstance(cell, str):
            cell = {"true": 1.0, "false": 0.0}.get(cell.strip().lower(), cell)
        try:
            points = float(cell) / most
        except (TypeError, ValueError):
            return None
        if not 0 <= points <= 1:
            return None
        cells.append(points)
    return cells


def _by_answer(table: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame | None:
    """Return a table's rows in the order of the answers; None if it has others."""
    if len(table) != len(asked):
        return None
    if "index" not in table:
        return table
    order = {str(index): place for place, index in enumerate(table["index"])}
    indexes = [str(index) for index in asked["index"]]
    if set(indexes) != order.keys():
        return None
    return table.iloc[[order[index] for index in indexes]]


def _read_in(rows: pd.DataFrame, own: Sequence[object]) -> list[str | None]:
    name = next((name for name in READ if name in own), None)
    if name is None:
        return [None] * len(rows)
    texts = [str(cell) for cell in rows[name]]
    return [None if text in {"nan", "None"} else text for text in texts]


def _column_of(rows: pd.DataFrame, own: Sequence[object], name: str) -> list[str]:
    return [str(cell) for cell in rows[name]] if name in own else [""] * len(rows)


def _metrics_of(
    result: object,
    written: Sequence[tuple[str, object]],
    asked: pd.DataFrame,
    job: Job,
) -> dict[str, float]:
    """Return the numbers of what was returned, or else of the files without answers."""
    if isinstance(result, str) and Path(result).is_relative_to(job.folder):
        # Some return where they wrote it.
        name = Path(result).name
        result = next((each for file, each in written if file == name), None)
    if isinstance(result, pd.DataFrame) and "prediction" in result:
        result = None  # the answers, with what was read in each
    if metrics := flatten(result):
        return metrics
    found = [
        (name, numbers)
        for name, each in written
        if not _is_of_answers(each, asked) and (numbers := flatten(each))
    ]
    if len(found) == 1:
        return found[0][1]
    return {
        f"{name}: {metric}": number
        for name, numbers in found
        for metric, number in numbers.items()
    }


def _is_of_answers(written: object, asked: pd.DataFrame) -> bool:
    if isinstance(written, pd.DataFrame):
        return "prediction" in written or (
            "index" in written and len(written) == len(asked)
        )
    if isinstance(written, dict):
        indexes = {str(index) for index in asked["index"]}
        return bool(indexes) and {str(key) for key in written} <= indexes
    return isinstance(written, list) and len(written) == len(asked)


def _tables(
    result: object, written: Sequence[tuple[str, object]]
) -> list[pd.DataFrame]:
    """Return the tables that may have a row for each answer, the last written first."""
    found = [each for _, each in reversed(written) if isinstance(each, pd.DataFrame)]
    for _, each in reversed(written):
        cells = list(each.values()) if isinstance(each, dict) else each
        if not isinstance(cells, list) or not cells:
            continue
        if not all(isinstance(cell, dict) for cell in cells):
            continue
        if not isinstance(each, dict):
            found.append(pd.DataFrame(cells))
        else:
            rows = pd.DataFrame(cells)
            if "index" not in rows:
                rows["index"] = [str(key) for key in each]
            found.append(rows)
    parts = result if isinstance(result, tuple) else (result,)
    return [*found, *(each for each in parts if isinstance(each, pd.DataFrame))]


def _written(job: Job, answers: str) -> Iterator[tuple[str, object]]:
    """Yield what was written, by the end of its name behind that of the answers."""
    stem = Path(answers).stem

    def shown(path: str) -> str:
        return Path(path).name.removeprefix(stem).lstrip("_")

    before = {answers, *job.given}
    for path, table in job.tables.items():
        if path not in before or (path == answers and table is not job.given[path]):
            yield shown(path), table
    for path, found in job.results.items():
        yield shown(path), found
    for file in sorted(job.folder.rglob("*")):
        path = str(file)
        if path in before or path in job.tables or path in job.results:
            continue
        read = READERS.get(file.suffix)
        if read is not None and file.is_file() and file.stat().st_size:
            with suppress(Exception):
                yield shown(path), read(file)


def _read_json(file: Path) -> object:
    import json

    return json.loads(file.read_text(encoding="utf-8"))


def _read_lines(file: Path) -> object:
    import json

    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


READERS: dict[str, Any] = {
    ".csv": pd.read_csv,
    ".tsv": lambda file: pd.read_csv(file, sep="\t"),
    ".xlsx": pd.read_excel,
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".pkl": lambda file: pickle.loads(file.read_bytes()),
}


@contextmanager
def _confined(job: Job) -> Iterator[None]:
    """Let files be opened in the job's own folder only, tables of the job among them.

    Classes that read their tables by pandas itself get those that were never written.
    """
    readers = {name: getattr(pd, name) for name in ("read_excel", "read_csv")}

    def known(read: Any) -> Any:
        def read_table(file: Any, *given: Any, **named: Any) -> Any:
            table = job.tables.get(str(file)) if isinstance(file, str | Path) else None
            return read(file, *given, **named) if table is None else table.copy()

        return read_table

    within, folder = job.within, tempfile.tempdir
    # Modules that it imports read their own files before it may do no more.
    job.within = [job.folder]
    tempfile.tempdir = str(job.folder)
    for name, read in readers.items():
        setattr(pd, name, known(read))
    try:
        yield
    finally:
        job.within, tempfile.tempdir = within, folder
        for name, read in readers.items():
            setattr(pd, name, read)


def _explain(class_name: str, error: BaseException, job: Job) -> str:
    """Explain what an `evaluate` raised, with the line of ms-vlmeval it came from."""
    what = f"the evaluate of ms-vlmeval's {class_name}"
    place = place_of(traceback.extract_tb(error.__traceback__))
    if isinstance(error, ContainedError):
        return (
            f"{what} tried what the sandbox does not allow {place}: {error}. Its "
            "answers are kept."
        )
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent is not None:
        return (
            f"{what} needs the package {absent} {place}, which is not in the sandbox's "
            f"environment ({error}). --vlm-sandbox-python takes an environment that "
            "has it."
        )
    said = " ".join(str(error).split())[:500]
    refused = f" Before, it tried {job.refused[0]}." if job.refused else ""
    return (
        f"{what} failed on {len(job.asked)} answers: {type(error).__name__}: "
        f"{said or 'no text'} {place}.{refused} Its answers are kept. Some classes "
        "need all rows of their dataset: leave out --vlm-limit and --vlm-sample."
    )


def place_of(frames: Iterable[traceback.FrameSummary]) -> str:
    """Name the last line of ms-vlmeval among frames."""
    own = [frame for frame in frames if "/vlmeval/" in frame.filename]
    if not own:
        return "before it was begun"
    file = own[-1].filename.rpartition("/vlmeval/")[2]
    return f"({file}:{own[-1].lineno})"


def _describe(result: object) -> str:
    if result is None:
        return "nothing"
    if isinstance(result, pd.DataFrame):
        return f"a table with {', '.join(map(str, result.columns))}"
    return f"{type(result).__name__} {str(result)[:100]!r}"
