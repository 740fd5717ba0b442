"""Which datasets a session needs, and what of them is to be downloaded, ahead of it.

A dataset's items are known once it is prepared. So while pytest collects, a test over
datasets only notes their names, and has no items. When all are collected the sum of the
downloads is known, before the first byte, and may be refused; then the tests get their
items, where pytest would have put them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_vlmeval import suite
from pytest_vlmeval.datasets.unscored import explain_left_out, explain_refusal
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.option import OTHERS
from pytest_vlmeval.suite.selection import (
    is_narrowed,
    named_datasets,
    named_ids,
    selected_datasets,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import DownloadPlan
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.run import Run

    Collected = pytest.Item | pytest.Collector


class DeferredTest(pytest.Collector):
    """A test over datasets, whose items are made once what all tests need is known.

    Where the command line names one of its items, it has the name of that, and no
    other.
    """

    def __init__(self, *, test: str, obj: object, forecast: Forecast, **given: Any):
        super().__init__(**given)
        self.test = test
        self.obj = obj
        self._forecast = forecast

    def collect(self) -> Iterable[Collected]:
        """Return the items, none while needs are noted."""
        return self._forecast.items_of(self)


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

    `noting` is true until all tests are collected; `refusal` is why the session is to
    end before its first download. A session that `only_collects` asks nothing, so what
    cannot be scored is no reason. With `names_only` no test gets an item.
    """

    def __init__(
        self, *, only_collects: bool = False, names_only: bool = False
    ) -> None:
        self.only_collects = only_collects
        self.names_only = names_only
        self.names: dict[str, None] = {}
        # Of benchmarks that leave out what cannot be scored.
        self.left_out: dict[str, LeftOut] = {}
        self.noting = True
        self.refusal: str | None = None
        # Those that run over what others do not, looked at when all others are known.
        self._open: list[tuple[pytest.Metafunc, list[str]]] = []
        # Each with how many items were collected before it, since the first.
        self._deferred: list[tuple[DeferredTest, int]] = []
        self._collected = 0
        self._made: dict[tuple[pytest.Collector, str], Sequence[Collected]] = {}

    def note(self, metafunc: pytest.Metafunc, fixture: str, run: Run) -> None:
        """Note the datasets of a test, which gets one item that shows nothing."""
        datasets = named_datasets(metafunc)
        run.choice.declare(datasets)
        if OTHERS in datasets:
            self._open.append((metafunc, datasets))
        else:
            self._add(metafunc, datasets, run)
        metafunc.parametrize(fixture, [suite.UnselectedParameter()], indirect=True)

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

    def defer(
        self, collector: pytest.Collector, test: str, obj: object, made: object
    ) -> object:
        """Put a test without items in the place of those that show nothing."""
        if not any(map(suite.parameter_of, _as_list(made))):
            return made
        options = {"test": test, "obj": obj, "forecast": self}
        whole = DeferredTest.from_parent(collector, name=test, **options)
        return [
            DeferredTest.from_parent(collector, name=f"{test}[{each}]", **options)
            for each in sorted(named_ids(whole) or ())
        ] or [whole]

    def pytest_itemcollected(self) -> None:
        """Count what is collected between the tests whose items are still to come."""
        self._collected += 1

    def items_of(self, node: DeferredTest) -> Sequence[Collected]:
        """Return the items of a test; none while names are noted."""
        if self.noting:
            self._deferred.append((node, self._collected))
            return ()
        parent = node.parent
        assert parent is not None
        key = parent, node.test
        if key not in self._made:
            # By the hook, as pytest does: it asks for the parameters once more.
            made = parent.ihook.pytest_pycollect_makeitem(
                collector=parent, name=node.test, obj=node.obj
            )
            self._made[key] = _as_list(made)
        if node.name == node.test:
            return self._made[key]
        return [item for item in self._made[key] if item.name == node.name]

    def end_noting(self, run: Run) -> None:
        """Take up the tests that run over what no other does."""
        self.noting = False
        for metafunc, datasets in self._open:
            self._add(metafunc, datasets, run)

    def expand(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put the items of the tests where they would have been collected.

        Raises `pytest.UsageError` for one that the command line names and none has.
        """
        count, taken = self._collected, 0
        found: list[pytest.Item] = []
        for node, before in self._deferred:
            place = len(items) - (count - before)
            found += items[taken:place]
            taken = place
            assert node.parent is not None
            # pytest keeps what a node had, so another one is asked.
            again = DeferredTest.from_parent(
                node.parent, name=node.name, test=node.test, obj=node.obj, forecast=self
            )
            made = [*session.genitems(again)]
            if (
                not made
                and node.name != node.test
                and (node.parent, node.test) in self._made
            ):
                raise pytest.UsageError(
                    f"not found: {node.nodeid}\n(no match in any of [{node.parent!r}])"
                )
            found += made
        items[:] = [*found, *items[taken:]]
        # What is deselected now goes.
        self._made.clear()

    def check(self, run: Run, announce: Callable[[str], None]) -> None:
        """Describe what is to be downloaded, and what is left out.

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


def _as_list(made: Any) -> list[Any]:
    """Return what was made of a test; a plugin may have given one item, or nothing."""
    return made if isinstance(made, list) else [made] if made else []


def find_unscored(run: Run, names: Iterable[str]) -> dict[str, str]:
    """Return why datasets cannot be scored, where a session is to score them."""
    if run.settings.mode == "infer":
        return {}
    found = {
        name: run.foresee_unscored(name) or run.foresee_unusable(name) for name in names
    }
    return {name: why for name, why in found.items() if why is not None}


def plan_session(run: Run, names: Iterable[str]) -> DownloadPlan:
    """Return what is missing of these datasets.

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
    """Stands in for running tests: `--vlm-download-only`."""

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
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Download what the tests need; each dataset that fails counts as a test."""
        run = self._get_run()
        names = list(self._forecast.names)
        try:
            run.check_names()
            plan = plan_session(run, names)
        except VlmEvalError as error:
            raise pytest.UsageError(str(error)) from None
        if plan.downloads:
            self._announce(plan.summary())
        session.testscollected = len(names)
        session.testsfailed += sum(not self._fetch(run, name) for name in names)
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
    """Stands in for running tests: `--vlm-setup`.

    `looks` says whether paths are given, whose tests are collected; else what
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
    def pytest_collection(self) -> bool | None:
        """Collect nothing, unless paths are given."""
        return None if self._looks else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Build the environments that the datasets need."""
        run = self._get_run()
        try:
            if self._looks:
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
