"""Models and judges with several endpoints, and what a run says of its costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pytest_vlmeval.suite.session import Controller
from tests.support.judged_sessions import benchmark, judged_by, write_choices
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

StartServer = Callable[..., ServerProcess]

USAGE = "[0-9]* tokens in and [0-9]* out, p50/p95/p99 [0-9]*/[0-9]*/[0-9]* ms"


@pytest.mark.slow
def test_a_judge_with_several_endpoints(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    # Each question takes so long that the other endpoint is the less loaded one.
    judges = [vlm_server(judge="good", models=["judge"], latency_s=2) for _ in "12"]
    bases = [f"--vlm-judge-api-base={judge.url}" for judge in judges]
    result = project.ask(server.url, "--vlm-judge=judge", *bases)
    result.assert_outcomes(passed=5)
    asked = [str(each["text"]) for judge in judges for each in judge.requests()]
    assert len(set(asked)) == len(asked) == 4
    assert all(judge.requests() for judge in judges)
    # The same judge at other addresses: nothing is asked again.
    result = project.ask(server.url, "--vlm-judge=judge", bases[1])
    result.assert_outcomes(passed=5)
    assert sum(len(judge.requests()) for judge in judges) == 4


def test_a_judge_goes_on_without_one_of_its_endpoints(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    good, bad = (vlm_server(judge="good", models=["judge"]) for _ in "12")
    bad.kill()
    arguments = ["--vlm-judge=judge", f"--vlm-judge-api-base={bad.url},{good.url}"]
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines([f"vlmeval: goes on without an endpoint. *{bad.url}*"])
    assert len(good.requests()) == 4


@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_a_model_goes_on_without_one_of_its_endpoints(
    project: Project,
    server: ServerProcess,
    vlm_server: StartServer,
    workers: list[str],
) -> None:
    project.write_math(4)
    server.control(default="B")
    bad = vlm_server()
    bad.kill()
    result = project.ask(server.url, f"--vlm-api-base={bad.url}", *workers)
    result.assert_outcomes(passed=3, xfailed=2)
    # Said once, though each process finds it out.
    said = [line for line in result.outlines if "goes on without an endpoint" in line]
    assert len(said) == 1
    assert said[0].startswith("vlmeval: ")
    assert bad.url in said[0]
    assert len(server.requests()) == 4


def test_the_summary_tells_the_totals_and_the_report_each_dataset(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    for name in ("MMStar", "AI2D_TEST"):
        write_choices(project, name)
    # Other questions than the first has: the same is not asked of a judge twice.
    table = project.data_root / "AI2D_TEST.tsv"
    table.write_text(table.read_text().replace("Which", "What"))
    project.pytester.makepyfile(test_choices=benchmark('MMStar", "AI2D_TEST'))
    server.control(default="pick number 1")
    judge = vlm_server(judge="good", models=["judge"])
    report = project.pytester.path / "report.html"
    result = project.ask(server.url, *judged_by(judge), f"--vlm-report={report}")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [f"asked: 8 requests, {USAGE}", f"judge judge: 8 requests, {USAGE}"]
    )
    result.stdout.no_fnmatch_line(f"*4 requests, {USAGE}")
    page = report.read_text(encoding="utf-8")
    for name in ("MMStar", "AI2D_TEST"):
        for asked in ("", " (judge)"):
            assert f"<b>{name}</b>{asked}: 4 requests, " in page


class SlowLine(str):
    """A line that takes so long to be looked up that threads meet."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0.05)
        return super().__hash__()


def test_what_all_workers_find_out_at_once_is_said_once() -> None:
    said: list[str] = []
    listening: list[Callable[[str], None]] = []

    def set_callback(hear: Callable[[str], None], endmarker: None) -> None:
        listening.append(hear)

    channel = SimpleNamespace(setcallback=set_callback)
    controller = Controller("session", said.append)
    for _ in range(4):
        gateway = SimpleNamespace(newchannel=lambda: channel)
        node = SimpleNamespace(workerinput={}, gateway=gateway)
        controller.pytest_configure_node(node)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda say: say(SlowLine("gone")), listening))
    assert said == ["gone"]
