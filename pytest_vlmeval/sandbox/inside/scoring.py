"""From answers to metrics and verdicts, through ms-vlmeval's own `evaluate`."""

from __future__ import annotations

import csv
import json
import platform
import string
import tempfile
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.inside import vlmevalkit
from pytest_vlmeval.sandbox.inside.families import (
    FAMILIES,
    UNCHECKED,
    find_family,
    with_adapter,
)
from pytest_vlmeval.sandbox.inside.fixes import ALLOWANCE
from pytest_vlmeval.sandbox.inside.job import Job, running
from pytest_vlmeval.sandbox.inside.judging import ask_open_questions
from pytest_vlmeval.sandbox.inside.media import STAND_IN
from pytest_vlmeval.sandbox.inside.metrics import flatten
from pytest_vlmeval.sandbox.inside.prediction_files import through_a_file
from pytest_vlmeval.sandbox.inside.preparation import NO_REFERENCE, build_dataset
from pytest_vlmeval.sandbox.inside.tables import (
    find_missing,
    is_own,
    keep_missing,
    read_rows,
)
from pytest_vlmeval.sandbox.inside.videos import scored_dataset
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_vlmeval.records import Scoring
    from pytest_vlmeval.sandbox.inside.families.common import Outcome
    from pytest_vlmeval.sandbox.inside.families.family import Family
    from pytest_vlmeval.sandbox.inside.job import Ask, Question

# Stands for an answer that is worth nothing: it matches no reference.
NO_WORD = NO_CHARACTER
# An answer that is read as a missing cell ends ms-vlmeval's evaluation of captions in
# an error, and that of VCR never (dataset/vcr.py:311).
ENDED_BY_MISSING = {"ImageCaptionDataset", "VCRDataset"}
NEEDS_JUDGE = (
    "{name} is scored by a judge only, and there is none. Its answers are kept: run "
    "the same command with --vlm-judge=NAME --vlm-judge-api-base=URL to score them."
)


def describe() -> dict[str, Any]:
    """Return the versions that decide a score."""
    return {
        "ms_vlmeval": version("ms-vlmeval"),
        "python": platform.python_version(),
        "pandas": version("pandas"),
    }


def score(
    info: dict[str, Any],
    rows: str,
    answers: list[tuple[str, list[str] | None]],
    on_progress: Callable[[int, int], None],
    ask: Ask | None = None,
    scoring: Scoring = "published",
    empty: Sequence[str] = (),
) -> dict[str, Any]:
    """Score answers, given as [index, replies], against the rows of the file `rows`.

    The table that ms-vlmeval sees has the rows that were answered, in the dataset's
    order, each with its reply exactly as it is, or with the list of them where prompts
    have several turns; None, where none is usable, is an empty text, or list, that is
    not shown to the judge; in corrected scoring nor is an empty reply. What stands at
    the `empty` indexes is what ms-vlmeval has in the place of one, and counts as wrong
    there. `ask` sends questions to the judge, without which answers are matched
    exactly. What the judge did not decide counts as wrong, and as right in `best`.
    `scoring` in the result is what was used: another than "published" only where it
    differs from it. A verdict that corrected scoring does not give has that one in
    `corrected`, and `sound` is the score in which those that are too good count as
    wrong, None where there are none. Raises NeedsJudgeError, and VlmEvalError for a
    class without an adapter and a dataset without references.
    """
    family = find_family(info)
    if family.judge == "required" and ask is None:
        raise NeedsJudgeError(NEEDS_JUDGE.format(name=info["name"]))
    if family.is_general and not family.corrected:
        scoring = "published"  # nothing of it was looked at and corrected
    table = read_rows(Path(rows), info)
    missing = {} if is_own(info) else find_missing(Path(rows), table)
    if scoring == "corrected":
        table = keep_missing(table, missing)
    if family.shown or family.pictured:
        # Passes for an image; the judge gets those that the model was shown.
        table["image"] = STAND_IN + "0" * 64
    job = Job(rows=table, folder=Path.cwd(), on_progress=on_progress)
    job.prepared = Path(rows).parent
    job.url, job.ask, job.scoring, job.missing = info["url"], ask, scoring, missing
    job.family = family
    job.unanswered = frozenset(index for index, said in answers if said is None)
    job.empty = frozenset(empty) | {
        index
        for index, said in answers
        if said is not None and not "".join(said).strip()
    }
    texts = {index: _prediction(family, said or []) for index, said in answers}
    outcome = _evaluate(info, family, job, texts)
    _explain_missing(job, table, outcome.verdicts)
    found = _measure(info, family, job, outcome)
    return found | {
        "best": _best_case(info, family, job, texts, found["value"]),
        "sound": _without_defects(info, family, job, texts, outcome),
        "scale": family.scale,
        "verdicts": _columns(outcome.verdicts),
        "scoring": scoring if _differs(info, job) else "published",
        "notes": (*outcome.notes, *_unchecked(info, family)),
    }


def _unchecked(info: dict[str, Any], family: Family) -> tuple[str, ...]:
    if family is not UNCHECKED:
        return ()
    return (
        f"it was not checked how this version's {info['class_name']} scores; the "
        "metrics are what its own evaluate gave",
    )


def _measure(
    info: dict[str, str], family: Family, job: Job, outcome: Outcome
) -> dict[str, Any]:
    """Return the metrics, and which of them ranks the dataset with its value."""
    metrics = flatten(outcome.result)
    main_metric, value = family.rank(info, metrics, outcome.verdicts)
    if family.judge == "partial" and job.ask is None:
        exact = f"{main_metric} (exact matching)"
        metrics[exact] = metrics.pop(main_metric)
        main_metric = exact
    return {"metrics": metrics, "main_metric": main_metric, "value": value}


def _without_defects(
    info: dict[str, Any],
    family: Family,
    job: Job,
    texts: dict[str, Any],
    outcome: Outcome,
) -> dict[str, Any] | None:
    """Mark the verdicts that corrected scoring does not give.

    The judge is not asked again: what only it could say of an answer, and was not
    asked as published, is wrong here. Gives metrics and value of the score in which
    the answers with too good a verdict are worth nothing. One that may well be what was
    meant differs, and rests on no defect.
    """
    if job.scoring == "corrected" or not _corrects(info, job):
        return None
    asked = any(unit.exchanges for unit in job.units.values())
    if outcome.differing == frozenset() and not (job.missing or job.empty or asked):
        return None  # both scorings read the same
    again = replace(
        job, ask=job.ask and _replay(job), on_progress=lambda *_: None, units={}
    )
    nothing = _prediction(family, [])
    corrected = {
        each["index"]: each["value"] or 0.0
        for each in _evaluate(
            info,
            family,
            replace(
                again,
                scoring="corrected",
                rows=keep_missing(job.rows, job.missing),
                unanswered=job.unanswered | job.empty,
            ),
            {key: nothing if key in job.empty else texts[key] for key in texts},
        ).verdicts
    }
    too_good = set()
    for each in outcome.verdicts:
        value, other = each["value"], corrected[each["index"]]
        if value is not None and value != other:
            each["corrected"] = other
            if value > other and not each["unsure"]:
                each["rests_on_defect"] = True
                too_good.add(each["index"])
    if not too_good:
        return None
    again.units = {}
    again.unanswered |= too_good
    texts = {key: NO_WORD if key in too_good else said for key, said in texts.items()}
    found = _measure(info, family, again, _evaluate(info, family, again, texts))
    return {"metrics": found["metrics"], "value": found["value"]}


def _replay(job: Job) -> Ask:
    """Return a judge that repeats what it said, and has no reply to anything new."""

    def reply(question: Question) -> Mapping[str, Any]:
        unit, attempt = job.units.get(question.pop("unit")), question.pop("attempt")
        exchanges = unit.exchanges if unit is not None else ()
        same = [each for each in exchanges if each.question == question]
        if attempt < len(same):
            found = same[attempt]
            return {"number": found.number, "text": found.text, "error": found.error}
        return {"number": 0, "text": None, "error": "not asked"}

    return lambda questions: [reply(dict(question)) for question in questions]


def _differs(info: dict[str, Any], job: Job) -> bool:
    """Return whether the job's scoring is another than the published one."""
    if job.scoring == "vlmevalkit":
        return info["class_name"] in vlmevalkit.CLASSES
    return _corrects(info, job)


def _corrects(info: dict[str, Any], job: Job) -> bool:
    """Return whether there is something to correct in how a dataset is scored."""
    family = FAMILIES.get(info["class_name"])
    if family is None or family.is_general:
        return family is not None and family.corrected
    return family.corrected or bool(job.missing or job.empty)


def _explain_missing(
    job: Job, rows: pd.DataFrame, verdicts: list[dict[str, Any]]
) -> None:
    """Say of wrong answers that no answer to their row can be right, and why."""
    if job.scoring == "corrected" or not job.missing or "answer" not in rows:
        return
    references = dict(zip(map(str, rows["index"]), rows["answer"], strict=True))
    for each in verdicts:
        cells = job.missing.get(each["index"], {})
        column = "answer" if "answer" in cells else str(references.get(each["index"]))
        if column in cells and not each["value"]:
            what = "reference" if column == "answer" else "option text"
            each["why_lost"] = (
                f"ms-vlmeval reads the {what} {cells[column]!r} as missing"
            )


def _columns(verdicts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a list for each field: one object for each verdict would take 20 MB."""
    names = verdicts[0] if verdicts else ()
    return {
        name: [each[name] for each in verdicts] for name in names if name != "unsure"
    }


def _prediction(family: Family, replies: list[str]) -> str | list[str]:
    """Return what ms-vlmeval has in its column of predictions."""
    # Half a character is no text to spacy, nor to a file.
    whole = [HALVES.sub(NO_CHARACTER, reply) for reply in replies]
    return whole if family.in_turns else "".join(whole)


def _best_case(
    info: dict[str, str], family: Family, job: Job, texts: dict[str, Any], value: float
) -> float:
    """Return the value if all that the judge did not decide were right."""
    judged = (*job.units.values(), *job.loose.units.values())
    if not any(unit.unusable for unit in judged):
        return value
    outcome = _evaluate(info, family, replace(job, best_case=True), texts)
    return family.rank(info, flatten(outcome.result), outcome.verdicts)[1]


def _evaluate(
    info: dict[str, Any], family: Family, job: Job, texts: dict[str, Any]
) -> Outcome:
    """Evaluate answers, again and again while questions to the judge come up."""
    while True:
        job.loose.begin()
        try:
            outcome = _evaluate_once(info, family, job, texts)
        except Exception:
            if not ask_open_questions(job):
                raise
        else:
            if not ask_open_questions(job):
                return outcome


def _evaluate_once(
    info: dict[str, Any], family: Family, job: Job, texts: dict[str, Any]
) -> Outcome:
    ALLOWANCE.renew()
    build = scored_dataset if info.get("modality") == "video" else build_dataset
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        job.asked = list(texts)
        job = replace(
            job, folder=Path(folder), tables={}, results={}, refused=[], stages=0
        )
        with running(job):
            dataset = build(info, job)
            table = _predictions(info, dataset.data, texts, family)
            # Where upstream gives a number for answers that its file changes.
            if not (
                job.scoring == "corrected"
                or is_own(info)
                or family.in_turns
                or info["class_name"] in ENDED_BY_MISSING
            ):
                table["prediction"] = through_a_file(
                    list(table["prediction"]),
                    job.folder / "predictions.xlsx",
                    formulas=not (job.scoring == "vlmevalkit" and _differs(info, job)),
                )
            job.asked = [str(index) for index in table["index"]]
            path = str(job.folder / f"answers_{info['rules']}.xlsx")
            job.dump_table(table, path)
            job.given = dict(job.tables)
            return family.evaluate(dataset, path, job)


def _predictions(
    info: dict[str, Any],
    rows: pd.DataFrame,
    texts: dict[str, Any],
    family: Family,
) -> pd.DataFrame:
    reference = family.reference
    known = rows[reference] if reference in rows else pd.Series(dtype=object)
    # Of a class that nobody looked at it is not known where its references are.
    is_known = reference in rows or not family.is_general
    if is_known and (known.isna() | (known == NO_REFERENCE)).all():
        raise VlmEvalError(
            f"{info['name']} has no reference answers, so its answers cannot be scored "
            "here. --vlm-mode=infer collects them."
        )
    # With all questions about a video in one prompt, answers go by videos.
    key = "video" if info.get("settings", {}).get("pack") else "index"
    indices = [str(index) for index in rows[key]]
    unknown = texts.keys() - set(indices)
    if unknown or not texts:
        raise ValueError(f"{len(texts)} answers, without a row: {sorted(unknown)[:5]}")
    table = rows[[index in texts for index in indices]].copy()
    table["prediction"] = [texts[str(index)] for index in table[key]]
    return table


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
    name = info["rules"] if with_adapter(info["class_name"]) else ""
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
    # A lone carriage return ends a row, unless there are quotes around its cell.
    lone = any("\r" in str(cell) for name in table for cell in table[name])
    table.to_csv(
        path,
        sep="\t",
        index=False,
        encoding="utf-8",
        quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL,
    )
