"""The gate of a baseline: whether a score's verdicts got worse than committed ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    find_differences,
    find_flips,
    load_baseline,
    make_baseline,
    place_baseline,
)
from pytest_vlmeval.gates.completeness import name_defect
from pytest_vlmeval.gates.measures import find_units
from pytest_vlmeval.gates.message import (
    Line,
    change_text,
    defects_line,
    needed_line,
    samples_line,
    see_line,
    title_of,
    value_line,
    worst_line,
    write_block,
)
from pytest_vlmeval.records import (
    FIRST,
    NO_RULE,
    WRITTEN,
    GateOutcome,
    GateResult,
    Interval,
    Verdict,
    is_failure,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.measures import Units
    from pytest_vlmeval.gates.paired import Comparison
    from pytest_vlmeval.gates.statistics import Adjusted
    from pytest_vlmeval.records import Inconclusive, PlanEntry, Score, Setting, Stop
    from pytest_vlmeval.settings import Settings
    from pytest_vlmeval.settings.groups import BaselineSettings

# More samples than this are counted, not named.
MOST_NAMED = 20

TITLES: Mapping[GateOutcome, str] = {
    "passed": "is not worse than its baseline.",
    "failed": "is worse than its baseline.",
    "inconclusive": "is below its baseline, which may be chance.",
}


def decide(it: Comparison, adjusted: Adjusted | None = None) -> GateOutcome:
    """Return what a comparison says; with `adjusted`, among all gates of the run.

    It fails where a drop beyond the margin is shown at the level, passes where none is
    seen, and is inconclusive where one is seen that may be chance.
    """
    if adjusted.is_alarm if adjusted else it.p_value <= it.alpha:
        return "failed"
    return "inconclusive" if it.change < -it.margin - 1e-9 else "passed"


def describe_comparison(it: Comparison, adjusted: Adjusted | None) -> list[Line]:
    """Describe what changed, how sure that is, and what could have been seen."""
    among = f"; {adjusted.text}" if adjusted else ""
    beyond = f", a drop of more than {100 * it.margin:g} points" if it.margin else ""
    if it.smallest is None:
        power = "so few samples show no drop four times in five, however large"
    else:
        power = f"a drop of {100 * it.smallest:.1f} points is found four times in five"
    return [
        ("change", f"{change_text(it, it.p_value)}{among}"),
        (
            "test",
            f"one-sided{beyond}, level {1 - it.alpha:g}; CI by {it.interval_method}",
        ),
        ("flips", f"{it.lost:,} lost (right, now wrong), {it.gained:,} gained"),
        ("power", power),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineGate:
    """Compares a score with its baseline, which lies (or is missing) at `place`.

    A score is neither compared nor made the baseline where something is `lacking`:
    what its gates of completeness say.
    `find_units` returns the independent units of a score, None where its samples have
    no verdicts. `selected` are the samples that a baseline is of, where not all of
    them were asked because of `stop`. `adjusted` counts the other gates of the run.
    """

    score: Score
    lacking: tuple[str, ...]
    current: Baseline
    place: BaselinePlace
    settings: BaselineSettings
    inconclusive: Inconclusive
    find_units: Callable[[Score], Units | None]
    selected: Collection[str] | None = None
    stop: Stop | None = None
    adjusted: Adjusted | None = None

    @property
    def found(self) -> str:
        """The place where it is read, as it is shown."""
        return _show(self.place.found)

    @property
    def own(self) -> str:
        """The place where it is written, as it is shown."""
        return _show(self.place.own)

    def compare(self, baseline: Baseline) -> GateResult:
        """Return whether the model got worse, or why that cannot be said."""
        if differences := self.differences(baseline):
            return self._refused(differences)
        pair = self.pair(baseline)
        if pair is None:
            return self._as_a_whole(baseline)
        result = self._decided(baseline, self._test(*pair), pair[1])
        return result if result.fails else self._sound(baseline, pair[0], result)

    def p_value(self, baseline: Baseline) -> float | None:
        """Return that of a drop by chance; None if verdicts are not compared."""
        if self.differences(baseline):
            return None
        pair = self.pair(baseline)
        return None if pair is None else self._test(*pair).p_value

    def differences(self, baseline: Baseline) -> list[str]:
        """Describe in what the runs differ so that they cannot be compared."""
        return find_differences(baseline, self.current, self.selected)

    def pair(self, baseline: Baseline) -> tuple[Units, Units] | None:
        """Return what was asked before and now; None if it has no verdicts."""
        before, now = self._units(baseline), self._units(self.current)
        return None if before is None or now is None else (before, now)

    def _test(self, before: Units, now: Units) -> Comparison:
        from pytest_vlmeval.gates.paired import compare

        return compare(
            [unit.value for unit in before.all],
            [unit.value for unit in now.all],
            clusters=[unit.cluster for unit in now.all],
            margin=self.settings.margin / 100,
            alpha=self.settings.alpha,
        )

    def _units(self, baseline: Baseline) -> Units | None:
        # In one order, whatever that of a file is: the units are compared in pairs.
        values = baseline.values
        verdicts = tuple(
            Verdict(index=each.index, value=values[each.index])
            for each in self.current.verdicts
        )
        return self.find_units(replace(self.score, verdicts=verdicts))

    @property
    def is_needed(self) -> bool:
        """Whether the score fails without a baseline."""
        if self.settings.allow_missing:
            return False
        return self.settings.require or not self.place.is_first

    def missing(self, command: str) -> GateResult:
        """Return what a score without a baseline is; `command` began the session."""
        score = self.score
        if not self.is_needed:
            value = f"{score.main_metric} = {score.value:.2f}"
            why, rule = "the model has none yet", FIRST
            if self.settings.allow_missing:
                why, rule = "--vlm-allow-missing-baseline", NO_RULE
            result = self._result(
                "passed",
                f"{score.dataset} has no baseline for {self.current.model} "
                f"({self.found}): {value} passes without one ({why}).",
            )
            return replace(result, rule=rule)
        return self._result(
            "failed",
            f"No baseline for {score.dataset} and model {self.current.model}, so a "
            "regression cannot be detected.\n"
            f"To make this score the baseline:\n\n    {command} --snapshot-update\n\n"
            f"It uses the stored answers and writes {self.own}, which is to be "
            "committed.\n"
            + (
                "To run without baselines, leave out --vlm-require-baseline."
                if self.settings.require
                else "To run without baselines, add --vlm-allow-missing-baseline, or "
                "to the ini file vlm_allow_missing_baseline = true."
            ),
        )

    def unreadable(self, why: str, command: str = "") -> GateResult:
        """Return what a score is whose baseline's file cannot be read.

        `command` began the session, "" if it cannot write the file anew.
        """
        how = (
            f"\nTo make this score the baseline:\n\n    {command} --snapshot-update\n"
            if command
            else ""
        )
        return self._result("failed", f"{self.score.dataset}: {why}{how}")

    def incomplete(self, *, updating: bool) -> GateResult:
        """Return what a score is that lacks samples, compared or made the baseline."""
        doing = f"written to {self.own}" if updating else f"compared with {self.found}"
        return self._result(
            "failed",
            f"{self.score.dataset} is not {doing}, as it is not complete. "
            + " ".join(self.lacking),
        )

    def updated(self, earlier: GateResult | None = None) -> GateResult:
        """Return what a score is that has just become the baseline.

        `earlier` is what it is beside the baseline that it takes the place of.
        """
        message = f"{self.score.dataset}: this score is now the baseline {self.own}"
        if earlier is None or earlier.expected is None:
            return replace(self._result("passed", f"{message}."), rule=WRITTEN)
        was = f"It was {earlier.expected:.2f} and is {self.score.value:.2f}"
        if earlier.lost is not None:
            was += f", {earlier.lost} lost and {earlier.gained} gained"
        result = self._result("passed", f"{message}. {was}.")
        return replace(
            result,
            rule=WRITTEN,
            expected=earlier.expected,
            lost=earlier.lost,
            gained=earlier.gained,
            flips=earlier.flips,
        )

    def _refused(self, differences: Sequence[str]) -> GateResult:
        lines = "\n".join(f"  {each}" for each in differences)
        return self._result(
            "failed",
            f"Cannot compare {self.score.dataset} with its baseline {self.found}: the "
            f"baseline was made with other settings:\n{lines}\nRun with the baseline's "
            "settings, or make this run the baseline: the same command with "
            "--snapshot-update. To leave this gate out: -k 'not "
            "test_no_regression'.",
        )

    def _as_a_whole(self, baseline: Baseline) -> GateResult:
        """Compare values alone, where samples have no verdicts: captions."""
        tolerated = self.settings.margin / 100 * baseline.scale
        worse = self.score.value < baseline.value - tolerated - 1e-6
        outcome: GateOutcome = "inconclusive" if worse else "passed"
        message = write_block(
            f"{self.score.dataset} {TITLES[outcome]}",
            [
                value_line(self.score.value, self.score.scale, None),
                ("baseline", f"{baseline.value:.2f} in {self.found}"),
                (
                    "paired",
                    "not: single samples have no verdicts, so no test tells a "
                    "regression from chance",
                ),
            ],
        )
        return self._result(outcome, message, baseline=baseline)

    def _decided(self, baseline: Baseline, it: Comparison, units: Units) -> GateResult:
        stopped = self.stop and self.stop.outcome("baseline")
        outcome = stopped or decide(it, self.adjusted)
        flips = find_flips(baseline, self.current)
        result = replace(
            self._result(outcome, "", baseline=baseline),
            expected=self._expected(baseline, it),
            interval=self._interval(baseline, it),
            samples=it.samples,
            clusters=it.clusters,
            margin=self.settings.margin / 100 * self.score.scale,
            p_value=it.p_value,
            adjusted_p_value=self.adjusted and self.adjusted.p_value,
            lost=it.lost,
            gained=it.gained,
            flips=flips,
            worst=units.worst_categories(),
            needed_samples=it.needed if outcome == "inconclusive" else None,
        )
        lost = [each.index for each in flips if each.is_lost]
        rest = len(lost) - MOST_NAMED
        named = ", ".join(lost[:MOST_NAMED])
        before, now = (
            each.versions.get("pytest-vlmeval") for each in (baseline, self.current)
        )
        versions = f"the baseline is of pytest-vlmeval {before}, this is {now}"
        message = write_block(
            title_of(result, f"{self.score.dataset} {TITLES[outcome]}"),
            [
                *self._begin(baseline, it, result),
                *describe_comparison(it, self.adjusted),
                ("lost", f"{named} and {rest:,} more" if rest > 0 else named)
                if lost
                else None,
                samples_line(it.samples, it.clusters),
                ("stopped", self.stop.reason) if self.stop else None,
                needed_line(result.needed_samples, it.samples),
                worst_line(result.worst),
                ("versions", versions) if before != now else None,
                defects_line(self.score),
                see_line(self.score.dataset),
            ],
        )
        return replace(result, message=message)

    def _sound(
        self, baseline: Baseline, before: Units, result: GateResult
    ) -> GateResult:
        """Fail what passes only by verdicts that rest on a known defect.

        Those that did so in the baseline, too, are no change.
        """
        new = set(self.current.defects) - set(baseline.defects)
        verdicts = (
            replace(each, value=0.0) if each.index in new else each
            for each in self.current.verdicts
        )
        now = self._units(replace(self.current, verdicts=tuple(verdicts)))
        if not new or now is None:
            return result
        it = self._test(before, now)
        if not is_failure(decide(it), self.inconclusive):
            return result
        message = write_block(
            f"{self.score.dataset} is worse than its baseline without the verdicts "
            f"that rest on {name_defect(self.score)}, and did not before.",
            [
                *self._begin(baseline, it, result),
                ("without", f"{len(new):,} verdicts that are new counted as wrong"),
                *describe_comparison(it, None),
                defects_line(self.score),
                (
                    "accept",
                    "by making this score the baseline: the same command with "
                    "--snapshot-update",
                ),
                see_line(self.score.dataset),
            ],
        )
        return replace(result, outcome="failed", fails=True, message=message)

    def _begin(
        self, baseline: Baseline, it: Comparison, result: GateResult
    ) -> Sequence[Line]:
        """Return the lines of the score and its baseline."""
        expected = self._expected(baseline, it)
        said = f"{baseline.value:.2f}"
        if expected != baseline.value:
            said = f"{expected:.2f} of the same samples, {said} of all,"
        return [
            value_line(self.score.value, self.score.scale, result.interval),
            ("baseline", f"{said} in {self.found}"),
        ]

    def _expected(self, baseline: Baseline, it: Comparison) -> float:
        """Return what the baseline was, of the same samples where that can be told."""
        scale = self.score.scale
        is_mean = abs(self.score.value - it.after * scale) <= 0.006 * scale / 100
        return it.before * scale if self.stop and is_mean else baseline.value

    def _interval(self, baseline: Baseline, it: Comparison) -> Interval | None:
        """Return the interval of the value, where it is the mean of the verdicts."""
        scale, expected = self.score.scale, self._expected(baseline, it)
        for value, mean in ((expected, it.before), (self.score.value, it.after)):
            if abs(value - mean * scale) > 0.006 * scale / 100:
                return None
        return Interval(
            low=expected + it.low * scale,
            high=expected + it.high * scale,
            level=1 - 2 * it.alpha,
            method=f"{it.interval_method}, around the baseline",
        )

    def _result(
        self, outcome: GateOutcome, message: str, baseline: Baseline | None = None
    ) -> GateResult:
        return GateResult(
            dataset=self.score.dataset,
            gate="baseline",
            outcome=outcome,
            message=message,
            metric=self.score.main_metric,
            rule="paired",
            value=self.score.value,
            expected=None if baseline is None else baseline.value,
            file="" if baseline is None else str(self.place.found),
            samples=self.score.samples,
            fails=is_failure(outcome, self.inconclusive),
        )


def _show(path: Path) -> str:
    """Return a path from where the session runs, if it lies there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


class Baselines:
    """The baselines of a run's model.

    `generation` are the settings that answers depend on. `compared` names the folders
    in which a score of a dataset is held against one that has to be known ahead: those
    are read at once, so that what a session writes changes nothing for other gates.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        generation: Mapping[str, Setting | None],
        compared: Mapping[str, Collection[Path]],
    ) -> None:
        self._settings = settings
        self._library = library
        self._generation = generation
        self._regressed: dict[Path, frozenset[str]] = {}
        self._kept = {
            (dataset, folder): self._read(dataset, folder)
            for dataset, folders in compared.items()
            for folder in sorted(folders)
        }

    @property
    def model(self) -> str:
        """The model whose baselines these are."""
        return self._settings.model or ""

    def kept(self, dataset: str) -> Mapping[Path, Baseline | None]:
        """Return the baselines that a score is held against, by their folders.

        None where there was none at the beginning, or one that cannot be read: its
        gate says so. Nothing where it is written whatever it was.
        """
        if self._settings.baselines.updating == "all":
            return {}
        return {
            folder: baseline
            for (name, folder), baseline in self._kept.items()
            if name == dataset
        }

    def _read(self, dataset: str, folder: Path) -> Baseline | None:
        path = self._place(dataset, folder).found
        try:
            return load_baseline(path)
        except VlmEvalError:
            return None

    def gate(
        self,
        score: Score,
        folder: Path,
        *,
        lacking: Sequence[str] = (),
        planned: PlanEntry | None = None,
        stop: Stop | None = None,
        adjusted: Adjusted | None = None,
    ) -> BaselineGate:
        """Return the gate of a score among benchmarks in `folder`.

        `lacking` says which answers and verdicts it needs and does not have.
        `planned` names all that was selected where not all of it was asked.
        """
        selected = None if planned is None else frozenset(planned.indexes)
        return BaselineGate(
            score=score,
            lacking=tuple(lacking),
            current=self._describe(score, selected),
            place=self._place(score.dataset, folder),
            settings=self._settings.baselines,
            inconclusive=self._settings.gates.inconclusive,
            find_units=partial(find_units, self._library),
            selected=selected,
            stop=stop,
            adjusted=adjusted,
        )

    def regressed(self, score: Score, folder: Path) -> frozenset[str]:
        """Return the samples that were right in the baseline and are wrong now.

        None where there is no baseline, or one that cannot be compared with: its gate
        says so. Raises `VlmEvalError` for a baseline that cannot be read.
        """
        path = self._place(score.dataset, folder).found
        if path not in self._regressed:
            lost: frozenset[str] = frozenset()
            if path.is_file():
                baseline, current = load_baseline(path), self._describe(score)
                if not find_differences(baseline, current):
                    flips = find_flips(baseline, current)
                    lost = frozenset(each.index for each in flips if each.is_lost)
            self._regressed[path] = lost
        return self._regressed[path]

    def find(self, dataset: str, folder: Path) -> Path | None:
        """Return the file of a dataset's baseline; None if there is none."""
        path = self._place(dataset, folder).found
        return path if path.is_file() else None

    def _place(self, dataset: str, folder: Path) -> BaselinePlace:
        project = self._settings.baselines.project
        return place_baseline(folder, project, self.model, dataset)

    def _describe(
        self, score: Score, selected: Collection[str] | None = None
    ) -> Baseline:
        library, name = self._library, score.dataset
        python = library.environment.python
        package = locate_package(python, self._settings.cache_dir)
        return make_baseline(
            score,
            model=self.model,
            checksum=library.prepared(name).checksum,
            rows=library.rows(name),
            prompts=library.prompt_texts(name),
            generation=self._generation,
            package_version=package.version,
            plugin_version=version("pytest-vlmeval"),
            selected=selected,
        )
