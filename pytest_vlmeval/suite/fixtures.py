"""What a test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.suite import SampleParameter, ScoreParameter, UnpreparedParameter
from pytest_vlmeval.suite.session import get_run
from pytest_vlmeval.suite.views import SampleView, ScoreView, UnpreparedView

if TYPE_CHECKING:
    from pytest_vlmeval.run import Run
    from pytest_vlmeval.run.judge import JudgePanel


@pytest.fixture(scope="session")
def vlm_run(request: pytest.FixtureRequest) -> Run:
    """Return the run of this session: its settings, datasets, answers and scores."""
    return get_run(request.config)


@pytest.fixture(scope="session")
def vlm_judge(vlm_run: Run) -> JudgePanel:
    """Return the judge of this session, or all of several; skips without one."""
    if not vlm_run.settings.judges:
        pytest.skip(
            "vlm_judge needs a judge, and there is none: name one with "
            "--vlm-judge=NAME --vlm-judge-api-base=URL."
        )
    return vlm_run.judges


# These two do not ask for `vlm_run`: pytest would keep, for each item that does, a
# finalizer of it to the end of the session, 700 bytes a sample.


@pytest.fixture
def vlm_sample(
    request: pytest.FixtureRequest,
) -> Iterator[SampleView | UnpreparedView]:
    """Yield one sample of a dataset, with its answer and verdict."""
    parameter: SampleParameter | UnpreparedParameter = request.param
    if isinstance(parameter, UnpreparedParameter):
        yield UnpreparedView(parameter.error)
        return
    run, folder = get_run(request.config), request.node.path.parent
    view = SampleView(run, parameter.dataset, parameter.row, folder)
    yield view
    request.node.user_properties.extend(view.properties())
    _stop_at_outage(request, run)


@pytest.fixture
def vlm_score(
    request: pytest.FixtureRequest,
) -> Iterator[ScoreView | UnpreparedView]:
    """Yield the score of a dataset, with its metrics and verdicts."""
    parameter: ScoreParameter | UnpreparedParameter = request.param
    if isinstance(parameter, UnpreparedParameter):
        yield UnpreparedView(parameter.error)
        return
    run = get_run(request.config)
    view = ScoreView(run, parameter.dataset, request.node.path.parent)
    yield view
    request.node.user_properties.extend(view.properties())
    _stop_at_outage(request, run)


def _stop_at_outage(request: pytest.FixtureRequest, run: Run) -> None:
    """End the session where nothing is asked any more.

    All other items would fail with the same words. The controller of xdist's workers
    takes it up from the first of them, and stops the others.
    """
    if run.outage:
        request.session.shouldstop = run.outage
