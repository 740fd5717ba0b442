"""A baseline on disk: a score and its verdicts, as JSON with small, readable diffs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import (
    VLMEVALKIT_COMMIT,
    FlippedSample,
    Setting,
    is_right,
)
from pytest_vlmeval.settings.groups import NONE
from pytest_vlmeval.settings.table import BY_NAME

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.records import Score, Verdict

# Counts changes of the layout, so that an older file is told apart from a broken one.
FORMAT = 2
# A verdict that is none of these is a grade, written as a number.
WORDS = {"right": 1.0, "wrong": 0.0, "none": None}
BY_DEFECT = " by a defect"
# Beside the benchmarks, but not among syrupy's own files: its default extension takes
# every file below __snapshots__ that no test of the session used for a leftover, and
# --snapshot-update would remove the baselines of all other models.
FOLDER = "__baselines__"
# Where packages are installed, a later version takes the place of all that lies there.
INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineVerdict:
    """One verdict: `value` in [0, 1], None where there was none."""

    index: str
    category: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What later runs of a model over a dataset are compared with.

    `data` names what was asked (checksum of the file, digest of the prompts),
    `generation` how, `scoring` what judged the answers: runs in which any of these
    differ cannot be compared. `versions` is for the reader. `value` is
    `metrics[main_metric]` from 0 to `scale`. `defects` are the samples whose verdict
    rests on a known defect of the published scoring.
    """

    # How pydantic reads it: a text is no number, and a number is finite.
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "strict": True,
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }

    model: str
    dataset: str
    main_metric: str
    value: float
    scale: float
    metrics: Mapping[str, float]
    samples: int
    answered: int
    correct: int
    data: Mapping[str, str]
    generation: Mapping[str, Setting | None]
    scoring: Mapping[str, str]
    versions: Mapping[str, str]
    verdicts: tuple[BaselineVerdict, ...]
    defects: tuple[str, ...] = ()

    @cached_property
    def values(self) -> Mapping[str, float | None]:
        """The verdicts by index."""
        return {verdict.index: verdict.value for verdict in self.verdicts}

    def was_right(self, index: str) -> bool:
        """Return whether a sample was right; false where it was not asked."""
        return is_right(self.values.get(index))


def baseline_name(model: str, dataset: str) -> str:
    """Return the name of a baseline's file in its folder, without the suffix."""
    return "/".join(re.sub(r"[^\w.-]+", "_", part) for part in (model, dataset))


@dataclass(frozen=True, slots=True)
class BaselinePlace:
    """Where a baseline is written (`own`), and where it is read (`found`).

    Both are beside the benchmarks, unless an installed package brings these: then it is
    written in the project, and read from there if it is there, else from the package.
    """

    own: Path
    found: Path

    @property
    def is_first(self) -> bool:
        """Whether the model has no baseline of any dataset yet."""
        folders = {self.own.parent, self.found.parent}
        return not any(path for folder in folders for path in folder.glob("*.json"))


def place_baseline(
    folder: Path, project: Path, model: str, dataset: str
) -> BaselinePlace:
    """Return the place of the baseline of benchmarks in `folder`."""
    name = f"{baseline_name(model, dataset)}.json"
    beside = folder / FOLDER / name
    if not INSTALLED & set(folder.parts):
        return BaselinePlace(beside, beside)
    own = project / FOLDER / name
    brought = beside.is_file() and not own.is_file()
    return BaselinePlace(own, beside if brought else own)


def write_baseline(baseline: Baseline) -> str:
    """Return the text of a baseline's file, which has a line for each sample."""
    record: dict[str, object] = {"format": FORMAT}
    record |= {field.name: getattr(baseline, field.name) for field in fields(baseline)}
    record["metrics"] = {
        name: round(value, 6) for name, value in sorted(baseline.metrics.items())
    }
    record["value"] = round(baseline.value, 6)
    record["verdicts"] = _write_verdicts(baseline)
    # The verdicts say it.
    del record["defects"]
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def unusable(path: Path, error: Exception) -> str:
    """Explain that a baseline's file is there and cannot be opened, or is no text."""
    return f"{path} cannot be used ({error}). Fix it, or remove it."


def load_baseline(path: Path) -> Baseline:
    """Read a baseline from its file; `VlmEvalError` names one that is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VlmEvalError(unusable(path, error)) from None
    return read_baseline(path, text)


def read_baseline(path: Path, text: str) -> Baseline:
    """Make a baseline of its file's text; `VlmEvalError` names a file that is none."""
    from pydantic import ValidationError

    try:
        return _read(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except RecursionError:
        why = "it is nested too deeply"
    except _FormatError as error:
        raise VlmEvalError(f"{path} {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error)
    raise VlmEvalError(
        f"{path} is not a baseline that this version can read ({why}). Take it "
        "back from version control, or run the same command with "
        "--snapshot-update to write it anew."
    )


class _FormatError(Exception):
    """A baseline has the layout of another version."""


def _read(record: Any) -> Baseline:
    """Make a baseline of what is in a file; raises several errors."""
    from pydantic import TypeAdapter

    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    _check_format(record.pop("format"))
    wrong = set(record) ^ {field.name for field in fields(Baseline)} - {"defects"}
    if wrong:
        raise ValueError(f"it lacks, or should not have, {', '.join(sorted(wrong))}")
    verdicts: list[BaselineVerdict] = []
    defects: list[str] = []
    for category, samples in record["verdicts"].items():
        for index, text in samples.items():
            word = text.removesuffix(BY_DEFECT)
            if word != text:
                defects.append(index)
            verdicts.append(
                BaselineVerdict(
                    index=index, category=category, value=_read_verdict(index, word)
                )
            )
    record["verdicts"], record["defects"] = tuple(verdicts), tuple(defects)
    baseline = TypeAdapter(Baseline).validate_python(Baseline(**record))
    if not baseline.samples == len(baseline.values) == len(baseline.verdicts):
        raise ValueError(
            f"it has {len(baseline.values)} verdicts on {baseline.samples} samples"
        )
    return baseline


def _check_format(found: object) -> None:
    if found == FORMAT:
        return
    if isinstance(found, int) and 0 < found < FORMAT:
        raise _FormatError(
            f"has format {found}, of an earlier version of pytest-vlmeval, and this "
            f"version reads format {FORMAT}. Run the same command with "
            "--snapshot-update: it writes the file anew from the stored answers, and "
            "`git diff` shows the scores before and after."
        )
    raise _FormatError(
        f"has a format that this version of pytest-vlmeval does not know: it reads "
        f"format {FORMAT}. Install the version that wrote the file, or run the same "
        "command with --snapshot-update to write it anew."
    )


def _write_verdicts(baseline: Baseline) -> dict[str, dict[str, str]]:
    """Return the verdicts by category, in words."""
    defects = frozenset(baseline.defects)
    categories: dict[str, dict[str, str]] = {}
    for each in baseline.verdicts:
        text = name_verdict(each.value)
        if each.index in defects:
            text += BY_DEFECT
        categories.setdefault(each.category, {})[each.index] = text
    return dict(sorted(categories.items()))


def name_verdict(value: float | None) -> str:
    """Return a verdict in a word: right, wrong, none; a grade as a number.

    >>> name_verdict(1.0), name_verdict(2 / 3)
    ('right', '0.6667')
    """
    for word, meaning in WORDS.items():
        if value == meaning:
            return word
    return f"{value:.{DIGITS}f}".rstrip("0")


def _read_verdict(index: str, word: str) -> float | None:
    if word in WORDS:
        return WORDS[word]
    with suppress(ValueError):
        if 0 <= float(word) <= 1:
            return float(word)
    raise ValueError(
        f"{index} has the verdict {word!r}, and takes {', '.join(WORDS)} or a number "
        "from 0 to 1"
    )


DIGITS = 4
# The last member of an image in a prompt's JSON; quotes in a text are escaped there.
_SAVED_AS = re.compile(r'(\["image", "[^"]+", "[^"]+"), "[^"]*"\]')
EXPLAINED = {
    "checksum": "the data (checksum of the file)",
    "prompts": "the prompts or references (digest)",
}


def make_baseline(
    score: Score,
    *,
    model: str,
    checksum: str,
    rows: Sequence[IndexRow],
    prompts: Iterable[str],
    generation: Mapping[str, Setting | None],
    package_version: str,
    plugin_version: str,
    selected: Collection[str] | None = None,
) -> Baseline:
    """Return what a score is as a baseline.

    `rows` name the samples of the dataset in its order, `prompts` are all that is
    asked with each of them. The versions are those of ms-vlmeval and of this plugin,
    `selected` are the samples whose prompts make the digest: None for those scored.
    """
    verdicts = {verdict.index: verdict for verdict in score.verdicts}
    chosen = verdicts if selected is None else selected
    asked = zip(rows, prompts, strict=True)
    digest = digest_prompts(pair for pair in asked if pair[0].index in chosen)
    return Baseline(
        model=model,
        dataset=score.dataset,
        main_metric=score.main_metric,
        value=score.value,
        scale=score.scale,
        metrics=score.metrics,
        samples=score.samples,
        answered=score.answered,
        correct=score.correct,
        data={"checksum": checksum, "prompts": digest},
        generation=generation,
        scoring=_scoring(score, package_version),
        versions={"pytest-vlmeval": plugin_version, "scorer": score.scorer},
        verdicts=tuple(_describe(rows, verdicts)),
        defects=tuple(
            row.index
            for row in rows
            if row.index in verdicts and verdicts[row.index].rests_on_defect
        ),
    )


def _scoring(score: Score, package_version: str) -> Mapping[str, str]:
    if score.scoring == "own":
        # Its label, which names the code.
        label = score.scorer.removesuffix(f":{score.judge}")
        return {"method": "own", "judge": score.judge, "scorer": label}
    found = {
        "method": score.scoring,
        "judge": score.judge,
        "ms-vlmeval": package_version,
    }
    if score.scoring == "vlmevalkit":
        found["VLMEvalKit"] = VLMEVALKIT_COMMIT[:12]
    return found


def _describe(
    rows: Iterable[IndexRow], verdicts: Mapping[str, Verdict]
) -> Iterator[BaselineVerdict]:
    """Yield the verdict of each sample that was asked."""
    for row in rows:
        if (verdict := verdicts.get(row.index)) is not None:
            value = verdict.value
            yield BaselineVerdict(
                index=row.index,
                category=row.category or "",
                value=None if value is None else round(value, DIGITS),
            )


def digest_prompts(asked: Iterable[tuple[IndexRow, str]]) -> str:
    """Return a digest of what is asked, and of what is right.

    The name of the file that an image was read from is no part of either.
    """
    digest = hashlib.sha256()
    for row, prompt in asked:
        shown = _SAVED_AS.sub(r"\1]", prompt)
        digest.update(json.dumps([row.index, shown, row.reference]).encode())
    return digest.hexdigest()[:16]


def find_differences(
    baseline: Baseline, current: Baseline, selected: Collection[str] | None = None
) -> list[str]:
    """Describe in what two runs differ so that their verdicts cannot be compared.

    `selected` are the samples of the current one, where not all of them were asked.
    """
    found = []
    for name in ("model", "dataset"):
        before, now = getattr(baseline, name), getattr(current, name)
        if before != now:
            found.append(f"{name}: {before} in the baseline, now {now}")
    found += _differing("", baseline.data, current.data, leave_out="prompts")
    chosen = set(current.values if selected is None else selected)
    if baseline.values.keys() != chosen:
        only = len(chosen - baseline.values.keys())
        found.append(
            f"the subset: {baseline.samples:,} samples in the baseline, now "
            f"{len(chosen):,}, of them {only:,} others (--vlm-limit, --vlm-sample, "
            "--vlm-seed)"
        )
    else:
        found += _differing("", baseline.data, current.data, leave_out="checksum")
    generation = baseline.generation, current.generation
    found += _differing("generation: ", *generation, advise=_option_of)
    return found + _differing("scoring: ", baseline.scoring, current.scoring)


def _option_of(name: str, value: object) -> str:
    """Return the option that gives a setting this value, where one line can say it."""
    option = BY_NAME.get(name.replace("_", "-"))
    if value is None and name in ("max_tokens", "temperature"):
        value = NONE
    if option is None or option.secret or not isinstance(value, str | int | float):
        return ""
    try:
        option.parse(given := f"{value:g}" if isinstance(value, float) else str(value))
    except ValueError:
        return ""
    flag = option.flag if option.placeholder is None else f"{option.flag}={given}"
    return f" ({shlex.quote(flag)})"


def _differing(
    about: str,
    before: Mapping[str, object],
    now: Mapping[str, object],
    leave_out: str = "",
    advise: Callable[[str, object], str] = lambda name, value: "",
) -> list[str]:
    return [
        f"{about}{EXPLAINED.get(name, name)}: {before.get(name, 'unset')} in the "
        f"baseline, now {now.get(name, 'unset')}{advise(name, before.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if name != leave_out and before.get(name) != now.get(name)
    ]


def find_flips(baseline: Baseline, current: Baseline) -> tuple[FlippedSample, ...]:
    """Return the samples that were right and are not now, then those that became so."""
    flips = [
        FlippedSample(
            index=each.index,
            before=name_verdict(baseline.values[each.index]),
            now=name_verdict(each.value),
            is_lost=baseline.was_right(each.index),
        )
        for each in current.verdicts
        if each.index in baseline.values
        and baseline.was_right(each.index) != is_right(each.value)
    ]
    return tuple(sorted(flips, key=lambda flip: not flip.is_lost))
