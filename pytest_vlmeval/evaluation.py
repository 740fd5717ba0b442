"""`evaluate`: a run without a session, and what it gives back."""

from __future__ import annotations

import html
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.datasets.own import write_frame
from pytest_vlmeval.datasets.unscored import explain_refusal
from pytest_vlmeval.errors import VlmEvalError, did_you_mean, printable
from pytest_vlmeval.run import Run
from pytest_vlmeval.run.own_scoring import make_scoring
from pytest_vlmeval.run.plan import Need
from pytest_vlmeval.run.queue import ProcessShare
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.option import is_table, table_place
from pytest_vlmeval.settings.sources import call_sources
from pytest_vlmeval.suite import Benchmark, questions_of, scoring_of

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.records import Interval, Score
    from pytest_vlmeval.reports.export import Cell
    from pytest_vlmeval.reports.gallery import Gallery
    from pytest_vlmeval.reports.record import RunReport
    from pytest_vlmeval.run.own_scoring import OwnScoring
    from pytest_vlmeval.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A metric as `Results` shows it.

    `value` and `interval` go from 0 to `scale`: 100 where the metric is a share, the
    score's own where it is the score. Else `scale` is None, and `value` is in
    ms-vlmeval's unit. `interval` is None where single verdicts do not make the metric.
    """

    value: float
    scale: float | None
    interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The scores and samples of a call, of the datasets that were asked for.

    `report` is the whole record, `unscored` says why datasets have no score. `measures`
    are the metrics of each dataset by their names, on one scale. `remarks` say what was
    told on the way.
    """

    report: RunReport = field(repr=False)
    unscored: Mapping[str, str]
    measures: Mapping[str, Mapping[str, Measure]] = field(repr=False)
    remarks: tuple[str, ...] = field(repr=False, default=())

    @property
    def model(self) -> str:
        """The model that was asked."""
        return self.report.model

    @property
    def run_id(self) -> str:
        """The run in the store, as `pytest --vlm-runs` lists it."""
        return self.report.run_id

    def score(self, dataset: str) -> Score:
        """Return the score of a dataset; `VlmEvalError` where there is none."""
        for each in self.report.datasets:
            if each.dataset == dataset and each.score is not None:
                return each.score
        known = ", ".join(each.dataset for each in self.report.datasets)
        reason = self.unscored.get(dataset, "it was not asked")
        raise VlmEvalError(
            f"{dataset} has no score: {reason.rstrip('.')}. "
            f"The datasets here are: {known}."
        )

    def interval(self, dataset: str) -> Interval | None:
        """Return the confidence interval of a score, in its unit.

        None if single verdicts do not make the score. `VlmEvalError` if there is none.
        """
        measures = self.measures.get(dataset, {})
        found = measures.get(self.score(dataset).main_metric)
        return None if found is None else found.interval

    def show(
        self,
        dataset: str | None = None,
        *,
        outcome: str | None = "wrong",
        most: int = 20,
    ) -> Gallery:
        """Return samples that a notebook shows with their images.

        Those of one dataset or all, with this `outcome` (a value of the column of
        `samples`; None for any), and of them the first. `VlmEvalError` for a dataset
        or an outcome that there is not.
        """
        from pytest_vlmeval.reports.gallery import Gallery
        from pytest_vlmeval.reports.summary import OUTCOMES

        names = [each.dataset for each in self.report.datasets]
        if dataset is not None and dataset not in names:
            raise VlmEvalError(
                f"{dataset} was not asked.{did_you_mean(dataset, names)} The datasets "
                f"here are: {', '.join(names)}."
            )
        if outcome is not None and outcome not in OUTCOMES:
            raise VlmEvalError(
                f"outcome={outcome!r} is not accepted."
                f"{did_you_mean(str(outcome), OUTCOMES)} It takes None for any, or one "
                f"of {', '.join(OUTCOMES)}."
            )
        found = [
            (each, sample)
            for each in self.report.datasets
            if dataset in (None, each.dataset)
            for sample in each.samples
            if outcome in (None, sample.outcome)
        ]
        return Gallery(
            model=self.model, found=len(found), samples=found[: max(0, most)]
        )

    @property
    def scores(self) -> pd.DataFrame:
        """A row for each dataset: its main metric, and how complete it is.

        `value` and `best` count from 0 to `scale`; `low` and `high` are the bounds of
        the 90 % confidence interval, each of which holds with 95 %, empty where single
        verdicts do not make the value. `best` is what it would be if all that the judge
        left open were right. `unread` counts the answers of which
        no reader could tell what they say, `verdicts_by_defect` the verdicts that rest
        on a known defect of ms-vlmeval's scoring.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "dataset": each.dataset,
                    "metric": each.score.main_metric if each.score else None,
                    "value": each.score.value if each.score else None,
                    "low": interval.low if interval else None,
                    "high": interval.high if interval else None,
                    "best": each.score.best if each.score else None,
                    "scale": each.score.scale if each.score else None,
                    "standard_error": each.score.standard_error if each.score else None,
                    "samples": len(each.samples),
                    "answered": sum(
                        sample.answer is not None and sample.answer.is_usable
                        for sample in each.samples
                    ),
                    "cut_off": sum(sample.is_cut_off for sample in each.samples),
                    "correct": sum(s.outcome == "correct" for s in each.samples),
                    "unread": each.score.unread if each.score else None,
                    "verdicts_by_defect": (
                        (each.score.sound.defects if each.score.sound else 0)
                        if each.score
                        else None
                    ),
                    "score_without_defects": each.score.sound.value
                    if each.score and each.score.sound
                    else None,
                    "scoring": each.score.scoring if each.score else None,
                    "judge": each.score.judge if each.score else None,
                    "modified_data": each.modified,
                    "data_version": each.version,
                    "unscored": self.unscored.get(each.dataset, ""),
                }
                for each in self.report.datasets
                for interval in [self.interval(each.dataset) if each.score else None]
            ]
        )

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each metric of each dataset, as in scores.parquet of an export.

        But `value` goes from 0 to 100 wherever the metric is a share of right answers,
        which `scale` says; `low` and `high` are as in `scores`. `published` is
        ms-vlmeval's own number.
        """
        import pandas as pd

        from pytest_vlmeval.reports.export import score_rows

        return pd.DataFrame([self._metric(row) for row in score_rows(self.report)])

    def _metric(self, row: dict[str, Cell]) -> dict[str, Cell]:
        name, metric = str(row["dataset"]), str(row["metric"])
        found = self.measures[name][metric]
        published = self.score(name).metrics.get(metric, row["value"])
        changed: dict[str, Cell] = {}
        for column, cell in row.items():
            if column == "value":
                changed |= {
                    "value": found.value,
                    "low": found.interval.low if found.interval else None,
                    "high": found.interval.high if found.interval else None,
                    "scale": found.scale,
                    "published": published,
                }
            elif column != "scale":
                changed[column] = cell
        return changed

    @property
    def samples(self) -> pd.DataFrame:
        """A row for each sample, as in samples.parquet of an export."""
        import pandas as pd

        from pytest_vlmeval.reports.export import sample_rows

        return pd.DataFrame(list(sample_rows(self.report)))

    def __repr__(self) -> str:
        """Name the run and the main scores in a line."""
        scores = ", ".join(
            f"{each.dataset}={each.score.value:.2f}" if each.score else each.dataset
            for each in self.report.datasets
        )
        return f"Results({self.model}, run {self.run_id}: {scores})"

    def __str__(self) -> str:
        """Show the scores as a table of text."""
        columns = ["dataset", "metric", "value", INTERVAL, "samples", "answered"]
        shown = self._table()[columns]
        text = shown.to_string(index=False, na_rep="", float_format=_two)
        return f"{self.model}, run {self.run_id}\n{text}"

    def _table(self) -> pd.DataFrame:
        """Return the scores with their intervals in words."""
        table = self.scores
        intervals = [
            self.interval(each.dataset) if each.score else None
            for each in self.report.datasets
        ]
        words = [it and f"{it.low:.2f} to {it.high:.2f}" for it in intervals]
        table.insert(list(table).index("low"), INTERVAL, words)
        return table.drop(columns=["low", "high", "best", "scale", "standard_error"])

    def _repr_html_(self) -> str:
        """Show the scores in a notebook."""
        table = self._table()
        # What says nothing of any dataset would hide the rest.
        empty = [name for name in REMARKS if not _says(table[name])]
        table = table.drop(columns=empty)
        marks = [remark for remark in self.remarks if remark]
        notes = "".join(f"<li>{html.escape(remark)}</li>" for remark in marks)
        head = f"{html.escape(self.model)}, run {html.escape(self.run_id)}"
        body = table.to_html(index=False, na_rep="", float_format=_two)
        return f"<p><b>{head}</b></p>{body}{f'<ul>{notes}</ul>' if notes else ''}"


INTERVAL = "90 % interval"
# Columns that a notebook shows if they say anything of a dataset.
REMARKS = (
    "cut_off",
    "unread",
    "verdicts_by_defect",
    "score_without_defects",
    "modified_data",
    "data_version",
    "unscored",
)


def _says(column: pd.Series[Any]) -> bool:
    return any(value == value and value not in (None, 0, "") for value in column)


def _two(value: float) -> str:
    return f"{value:.2f}"


if TYPE_CHECKING:
    Datasets = str | Path | Iterable[str | Path] | Mapping[str, pd.DataFrame]


def evaluate(
    model: str | None = None,
    datasets: Datasets = (),
    *,
    score: Callable[..., object] | type[Benchmark] | None = None,
    progress: Callable[[str], object] | None = None,
    **options: object,
) -> Results:
    """Ask a model the questions of datasets, score its answers, return the results.

    `datasets` are names, paths of tables of the user's own, or a mapping of names to
    DataFrames with the columns of such tables. `options` are those of pytest without
    `--vlm-` and with `_` for `-`: `evaluate("m", ["MMStar"], api_base="http://...",
    limit=20)`. `config` may be a task as a dict too, in the shape of EvalScope's.
    `score` scores the datasets in the place of ms-vlmeval: a function of a `Sample` and
    its `Answer`, as `Benchmark.score`, or a `Benchmark` that has one. `progress` is
    told, line by line, what takes long; by default it goes to stderr. May be called
    where an event loop runs, as in a notebook, which it blocks.

    A session of pytest with the same options is the same run: what one of them asked,
    the other one finds in the store. Raises `VlmEvalError` for what the user can fix.
    """
    announce = _to_stderr if progress is None else progress
    with ThreadPoolExecutor(1, thread_name_prefix="vlm-evaluate") as thread:
        call = _Call(announce)
        future = thread.submit(call.run, model, datasets, options, score)
        del options
        try:
            return future.result()
        except VlmEvalError as error:
            # A reader of a traceback may print variables: those of a configuration.
            raise error.with_traceback(None) from None
        except KeyboardInterrupt:
            call.close()
            raise


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"vlmeval: {printable(line)}\n")


class _Call:
    """One call, in a thread of its own: the engine begins event loops."""

    def __init__(self, announce: Callable[[str], object]) -> None:
        self._told: list[str] = []
        self._announce = announce
        self._run: Run | None = None

    def _tell(self, line: str) -> None:
        self._told.append(line)
        self._announce(line)

    def close(self) -> None:
        """End what runs; answers stay in the store."""
        if self._run is not None:
            self._run.abandon("evaluate() was interrupted; answers are kept.")

    def run(
        self,
        model: str | None,
        datasets: Datasets,
        options: Mapping[str, object],
        score: object,
    ) -> Results:
        """Evaluate; the thread ends with the run closed."""
        here = Path.cwd()
        if "data" in options:
            raise VlmEvalError("evaluate() takes the datasets as datasets, not data.")
        keywords = {**options, "model": model}
        settings = load_from(call_sources(keywords, here))
        del keywords, options
        if settings.serving.model or settings.serving.judge:
            raise VlmEvalError(
                "evaluate() starts no server, which the ini file or the environment "
                "asks for (vlm_serve, vlm_judge_serve). Start it, and give its address "
                "as api_base or judge_api_base."
            )
        if settings.mode == "report":
            raise VlmEvalError(
                "evaluate() asks and scores, and mode='report' does neither: it "
                "belongs to the command line. Leave mode out: stored answers are not "
                "asked again."
            )
        own = _read_scoring(score)
        settings = replace(settings, data=_names(datasets, settings, here))
        for remark in settings.remarks:
            self._tell(remark)
        session_id = secrets.token_hex(16)
        self._run = run = Run(
            settings,
            session_id=session_id,
            share=ProcessShare(0, 1),
            announce=self._tell,
        )
        try:
            names = _take(run, settings.data, own, score)
            whole = Need(whole=True, indexes=frozenset())
            run.begin(dict.fromkeys(names, whole))
            unscored = {name: why for name in names if (why := _finish(run, name))}
            return self._load(settings, session_id, unscored)
        finally:
            run.close()

    def _load(
        self, settings: Settings, session_id: str, unscored: Mapping[str, str]
    ) -> Results:
        from pytest_vlmeval.gates.completeness import describe_defects
        from pytest_vlmeval.reports.outputs import write_result_tables
        from pytest_vlmeval.reports.record import load_session
        from pytest_vlmeval.reports.terminal import describe_origins, write_reports
        from pytest_vlmeval.run.store import Store

        store = Store(settings.work_dir, settings.store)
        try:
            report = load_session(store, settings.cache_dir, session_id)
        finally:
            store.close()
        assert report is not None
        account = report.account
        if account is not None and account.origins and account.spot_check:
            self._tell(describe_origins(account.origins, account.spot_check))
        for each in report.datasets:
            if each.score and (defects := describe_defects(each.score)):
                self._tell(f"{each.dataset}: {defects}")
        if settings.has_task:
            scores = [each.score for each in report.datasets if each.score]
            for line in write_result_tables(
                scores, settings.work_dir, model=report.model, run_id=report.run_id
            ):
                self._tell(line)
        if settings.report is not None or settings.export is not None:
            for line in write_reports(report, settings):
                self._tell(line)
        assert self._run is not None
        measures = {
            each.dataset: _measure(self._run.library, each.score)
            for each in report.datasets
            if each.score is not None
        }
        return Results(
            report=report,
            unscored=unscored,
            measures=measures,
            remarks=tuple(self._told),
        )


def _measure(library: Library, score: Score) -> Mapping[str, Measure]:
    """Return the metrics of a score on one scale, with their intervals."""
    from pytest_vlmeval.gates.measures import (
        estimate,
        find_metric,
        find_share,
        find_units,
    )
    from pytest_vlmeval.gates.thresholds import DEFAULT_LEVEL

    units = find_units(library, score)
    found: dict[str, Measure] = {}
    for name, value in score.metrics.items():
        share = units and find_share(score, units, name, DEFAULT_LEVEL)
        found[name] = (
            Measure(value=share.percent, scale=100, interval=share.interval)
            if share
            else Measure(value=value, scale=None)
        )
    main = units and estimate(score, units, find_metric(score, ""), DEFAULT_LEVEL)
    interval = main.interval if main else None
    score_itself = Measure(value=score.value, scale=score.scale, interval=interval)
    return found | {score.main_metric: score_itself}


def _names(datasets: Datasets, settings: Settings, here: Path) -> tuple[str, ...]:
    """Return names and absolute paths; those of a task file where none is given."""
    if isinstance(datasets, Mapping):
        folder = settings.work_dir / "frames"
        given: Sequence[str | Path] = [
            write_frame(name, frame, folder, here) for name, frame in datasets.items()
        ]
    else:
        given = [datasets] if isinstance(datasets, str | Path) else list(datasets)
    for each in given:
        if not isinstance(each, str | Path):
            raise VlmEvalError(
                f"datasets has a {type(each).__name__}. It takes names, paths of "
                "tables, or a mapping of names to DataFrames: {'mine': frame}."
            )
    names = tuple(table_place(str(each), here) for each in given)
    if not names and not settings.data:
        raise VlmEvalError(
            "evaluate() was given no dataset. Name some: datasets=['MMStar']; "
            "`pytest --vlm-list` shows them all."
        )
    return names or settings.data


def _read_scoring(score: object) -> OwnScoring | None:
    """Return what a call scores by; `VlmEvalError` for what is no scoring."""
    if score is None:
        return None
    if isinstance(score, type) and issubclass(score, Benchmark):
        own = scoring_of(score)
        if own is None:
            raise VlmEvalError(
                f"score={score.__name__} defines no score. Add "
                "def score(self, sample, answer), or leave it out."
            )
        return own
    if not callable(score):
        raise VlmEvalError(
            f"score is a {type(score).__name__}. It takes a function of a sample and "
            "an answer, or a Benchmark class that has one."
        )
    return make_scoring("", score)


def _take(
    run: Run, given: Sequence[str], own: OwnScoring | None, score: object
) -> list[str]:
    """Return the names of prepared datasets; `VlmEvalError` where one cannot be had.

    Of a `Benchmark` that scores, tables have the columns and the questions, too.
    """
    columns, questions = None, None
    if isinstance(score, type) and issubclass(score, Benchmark):
        columns, questions = score.columns, questions_of(score)
    names: dict[str, None] = {}
    for each in given:
        if is_table(each):
            names[run.take(each, columns, questions)] = None
        else:
            names.update(dict.fromkeys(run.library.find(each).members or [each]))
    run.library.check_own()
    run.library.check_classes(run.settings.classes)
    if own is not None:
        for name in names:
            run.scorings.declare(name, own.name, own, lambda: own)
    run.scorings.check(names)
    infer = run.settings.mode == "infer"
    _refuse({} if infer else {name: run.foresee_unscored(name) for name in names})
    for name in names:
        if not run.rows(name):
            raise VlmEvalError(f"{name} has no samples to ask.")
    _refuse({} if infer else {name: run.why_unscored(name) for name in names})
    return list(names)


def _refuse(found: Mapping[str, str | None]) -> None:
    """Raise VlmEvalError for datasets that are to be scored and cannot be."""
    reasons = {name: why for name, why in found.items() if why is not None}
    if reasons:
        raise VlmEvalError(explain_refusal(reasons, call=True))


def _finish(run: Run, dataset: str) -> str:
    """Wait for a dataset; say why it has no score, "" where it has one."""
    if run.settings.mode != "infer":
        try:
            run.score(dataset)
        except VlmEvalError as error:
            return str(error)
        return ""
    for row in run.rows(dataset):
        run.answers(dataset, row.index)
    return run.why_unscored(dataset) or "only asked (mode='infer')"
