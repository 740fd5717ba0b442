"""`evaluate`: a run without a session, by the same engine and in the same store."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.calls import call_sources
from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.frames import write_frame
from pytest_vlmeval.option_values import is_table
from pytest_vlmeval.options import environment, load_from
from pytest_vlmeval.planning import Needed
from pytest_vlmeval.results import Results
from pytest_vlmeval.run import Run
from pytest_vlmeval.sharing import Share
from pytest_vlmeval.unscored import explain_refusal

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.options import Settings

    Datasets = str | Path | Iterable[str | Path] | Mapping[str, pd.DataFrame]


def evaluate(
    model: str | None = None,
    datasets: Datasets = (),
    *,
    progress: Callable[[str], object] | None = None,
    **options: object,
) -> Results:
    """Ask a model the questions of datasets, score its answers, return the results.

    `datasets` are names, paths of tables of one's own, or a mapping of names to
    DataFrames with the columns of such tables. `options` are those of pytest without
    `--vlm-` and with `_` for `-`: `evaluate("m", ["MMStar"], api_base="http://...",
    limit=20)`. `config` may be a task as a dict too, in the shape of EvalScope's.
    `progress` is told, line by line, what takes long; by default it goes to stderr. May
    be called where an event loop runs, as in a notebook, which it blocks.

    A session of pytest with the same options is the same run: what one of them asked,
    the other one finds in the store. Raises `VlmEvalError` for what the user can mend.
    """
    announce = _to_stderr if progress is None else progress
    with ThreadPoolExecutor(1, thread_name_prefix="vlm-evaluate") as thread:
        call = _Call(announce)
        future = thread.submit(call.run, model, datasets, options)
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
        self, model: str | None, datasets: Datasets, options: Mapping[str, object]
    ) -> Results:
        """Evaluate; the thread ends with the run closed."""
        here = Path.cwd()
        if "data" in options:
            raise VlmEvalError("evaluate() takes the datasets as datasets, not data.")
        keywords = {**options, "model": model}
        settings = load_from(call_sources(keywords, environment(), here))
        del keywords, options
        if settings.serving.model or settings.serving.judge:
            raise VlmEvalError(
                "evaluate() starts no server, which the ini file or the environment "
                "asks for (vlm_serve, vlm_judge_serve). Start it, and give its address "
                "as api_base or judge_api_base."
            )
        settings = replace(settings, data=_names(datasets, settings, here))
        for remark in settings.remarks:
            self._tell(remark)
        session_id = secrets.token_hex(16)
        self._run = run = Run(
            settings, session_id=session_id, share=Share(0, 1), announce=self._tell
        )
        try:
            names = _take(run, settings.data)
            whole = Needed(whole=True, indexes=frozenset())
            run.begin(dict.fromkeys(names, whole))
            unscored = {name: why for name in names if (why := _finish(run, name))}
            return self._load(settings, session_id, unscored)
        finally:
            run.close()

    def _load(
        self, settings: Settings, session_id: str, unscored: Mapping[str, str]
    ) -> Results:
        from pytest_vlmeval.gates.defects import describe_defects
        from pytest_vlmeval.reports.accounts import describe_origins
        from pytest_vlmeval.reports.loading import load_session
        from pytest_vlmeval.reports.writing import write_reports
        from pytest_vlmeval.store import Store

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
        if settings.report is not None or settings.export is not None:
            for line in write_reports(report, settings):
                self._tell(line)
        return Results(report=report, unscored=unscored, remarks=tuple(self._told))


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
    names = tuple(
        str(here / Path(each).expanduser()) if is_table(str(each)) else str(each)
        for each in given
    )
    if not names and not settings.data:
        raise VlmEvalError(
            "evaluate() was given no dataset. Name some: datasets=['MMStar']; "
            "`pytest --vlm-list` shows them all."
        )
    return names or settings.data


def _take(run: Run, given: Sequence[str]) -> list[str]:
    """Return the names of prepared datasets; `VlmEvalError` where one cannot be had."""
    names: dict[str, None] = {}
    for each in given:
        if is_table(each):
            names[run.take(each)] = None
        else:
            names.update(dict.fromkeys(run.library.find(each).members or [each]))
    run.library.check_own()
    run.library.check_classes(run.settings.classes)
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
