"""Which datasets a session needs, and what of them is to be downloaded, ahead of it.

Datasets are prepared while pytest collects, one class after the other. So before the
first one, the modules that the command line names are looked through once more than
pytest does, noting names only; then the sum of the downloads is known before the first
byte, and may be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_vlmeval import suite
from pytest_vlmeval.datasets.unscored import explain_left_out, explain_refusal
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.option import OTHERS
from pytest_vlmeval.suite.selection import (
    argument_path,
    is_narrowed,
    named_datasets,
    selected_datasets,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import DownloadPlan
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.run import Run

# What a module does while it is imported or collected; the real collection tells it.
FAULTS = (Exception, pytest.fail.Exception, pytest.skip.Exception)


class LeftOut(NamedTuple):
    """Why a dataset is left out.

    `gated` are the folders of the tests that would hold it against thresholds,
    `compared` of those that would against a baseline.
    """

    why: str
    gated: set[Path]
    compared: set[Path]


class Forecast:
    """The names of the datasets that a session's tests need, noted ahead of them.

    `noting` is true while tests are only looked through; `refusal` is why the session
    is to end before its first download. A session that `only_collects` asks nothing,
    so what cannot be scored is no reason.
    """

    def __init__(self, *, only_collects: bool = False) -> None:
        self.only_collects = only_collects
        self.names: dict[str, None] = {}
        # Of benchmarks that leave out what cannot be scored.
        self.left_out: dict[str, LeftOut] = {}
        self.noting = False
        self.refusal: str | None = None
        # Those that run over what others do not, looked at when all others are known.
        self._open: list[tuple[pytest.Metafunc, list[str]]] = []

    def note(self, metafunc: pytest.Metafunc, fixture: str, run: Run) -> None:
        """Note the datasets of a test, which gets one item that shows nothing."""
        datasets = named_datasets(metafunc)
        run.choice.declare(datasets)
        if OTHERS in datasets:
            self._open.append((metafunc, datasets))
        else:
            self._add(metafunc, datasets, run)
        metafunc.parametrize(
            fixture, [suite.UnselectedParameter()], indirect=True, ids=["unselected"]
        )

    def _add(self, metafunc: pytest.Metafunc, datasets: list[str], run: Run) -> None:
        found = selected_datasets(metafunc, datasets, run)
        self.names.update(dict.fromkeys(found.names))
        folder = metafunc.definition.path.parent
        names = metafunc.fixturenames
        scored = "vlm_score" in names or not is_narrowed(metafunc.config, folder)
        for dataset, why in found.left_out.items():
            left = self.left_out.setdefault(dataset, LeftOut(why, set(), set()))
            if "snapshot" in names:
                left.compared.add(folder)
            elif scored:
                left.gated.add(folder)

    def look_ahead(self, session: pytest.Session, run: Run) -> None:
        """Note the datasets of all tests that the command line names."""
        self.noting = True
        try:
            for node in _named_nodes(session):
                _look_through(node)
        finally:
            self.noting = False
        for metafunc, datasets in self._open:
            self._add(metafunc, datasets, run)

    def check(self, run: Run, announce: Callable[[str], None]) -> None:
        """Say what is to be downloaded, and what is left out.

        Refuses the session where that is too much, or what is asked for cannot be
        scored.
        """
        reasons = {} if self.only_collects else find_unscored(run, self.names)
        left_out = {name: left.why for name, left in self.left_out.items()}
        if reasons or (self.left_out and not self.names):
            self.refusal = explain_refusal(reasons or left_out)
            return
        if self.left_out:
            announce(explain_left_out(left_out))
        try:
            plan = plan_session(run, self.names)
        except VlmEvalError as error:
            self.refusal = str(error)
        else:
            if plan.downloads:
                announce(plan.summary())


def find_unscored(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return why datasets cannot be scored, where a session is to score them."""
    if run.settings.mode == "infer":
        return {}
    found = {
        name: run.foresee_unscored(name) or run.foresee_unusable(name) for name in names
    }
    return {name: why for name, why in found.items() if why is not None}


def plan_session(run: Run, names: Iterable[str]) -> DownloadPlan:
    """Give what is missing of these datasets.

    Raises VlmEvalError if it is too much, or if an option does not apply to them.
    """
    from pytest_vlmeval.datasets.library import check_plan, plan_downloads
    from pytest_vlmeval.datasets.prepare import check_frames_apply

    settings = run.settings
    infos = list(_known(run, names))
    check_frames_apply(infos, settings.nframe, settings.fps)
    plan = plan_downloads(
        infos,
        data_root=settings.data_root,
        mirror=settings.data_mirror,
        offline=settings.offline,
        hubs=settings.hubs,
    )
    check_plan(plan, settings.download_max_gb)
    return plan


def _known(run: Run, names: Iterable[str]) -> Iterator[DatasetInfo]:
    for name in names:
        try:
            yield run.library.find(name)
        except VlmEvalError:
            continue  # An item of its own will say so.


class DownloadOnly:
    """Stands in for collecting and running tests: `--vlm-download-only`."""

    def __init__(
        self,
        forecast: Forecast,
        get_run: Callable[[], Run],
        announce: Callable[[str], None],
    ) -> None:
        self._forecast = forecast
        self._get_run = get_run
        self._announce = announce

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Download what the tests need; each dataset that fails counts as a test."""
        run = self._get_run()
        self._forecast.look_ahead(session, run)
        names = list(self._forecast.names)
        try:
            run.check_names()
            plan = plan_session(run, names)
        except VlmEvalError as error:
            raise pytest.UsageError(str(error)) from None
        if plan.downloads:
            self._announce(plan.summary())
        session.testscollected = len(names)
        session.testsfailed = sum(not self._fetch(run, name) for name in names)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool:
        """Run nothing."""
        return True

    def _fetch(self, run: Run, name: str) -> bool:
        try:
            path = run.library.fetch(name)
        except VlmEvalError as error:
            self._announce(str(error))
            return False
        self._announce(f"{name}: {path}")
        return True


class SetUpOnly:
    """Stands in for collecting and running tests: `--vlm-setup`.

    `looks` says whether paths are given, whose tests are looked through; else what
    `--vlm-data` names is set up by itself.
    """

    def __init__(
        self,
        forecast: Forecast,
        get_run: Callable[[], Run],
        announce: Callable[[str], None],
        *,
        looks: bool,
    ) -> None:
        self._forecast = forecast
        self._get_run = get_run
        self._announce = announce
        self._looks = looks

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Build the environments that the datasets need."""
        run = self._get_run()
        try:
            if self._looks:
                self._forecast.look_ahead(session, run)
                run.check_names()
                names = [*self._forecast.names, *self._forecast.left_out]
            else:
                names = run.choice.named()
            ready = run.library.set_up(names)
        except VlmEvalError as error:
            raise pytest.UsageError(str(error)) from None
        for python, datasets in ready.items():
            told = f" ({', '.join(datasets)})" if datasets else ""
            self._announce(f"sandbox environment ready: {python}{told}")
        session.testscollected = len(ready)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool:
        """Run nothing."""
        return True


def _named_nodes(session: pytest.Session) -> Iterator[pytest.Collector]:
    """Give new nodes for the arguments, so that pytest's own know nothing of them."""
    config = session.config
    for path in {argument_path(config, each): None for each in config.args}:
        if path.is_dir():
            yield _directory(session, path)
        elif path.suffix == ".py" and path.is_file():
            parent = _directory(session, path.parent)
            yield pytest.Module.from_parent(parent, path=path)


def _directory(session: pytest.Session, path: Path) -> pytest.Dir:
    root = session.config.rootpath
    inside = path != root and path.is_relative_to(root)
    parent = _directory(session, path.parent) if inside else session
    return pytest.Dir.from_parent(parent, path=path)


def _look_through(node: pytest.Item | pytest.Collector) -> None:
    children: Iterable[pytest.Item | pytest.Collector] = ()
    try:
        if isinstance(node, pytest.Directory):
            # By the hook, which also loads the folder's conftest.py.
            report = node.ihook.pytest_make_collect_report(collector=node)
            children = report.result if report.passed else ()
        elif isinstance(node, pytest.Module):
            # Past the methods that would make its fixtures known for this node.
            children = super(pytest.Module, node).collect()
        elif type(node) is pytest.Class:
            children = super(pytest.Class, node).collect()
    except FAULTS:
        return
    for child in children:
        _look_through(child)
