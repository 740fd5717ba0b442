"""Runs that are repeated: what is asked again, and which stored answers are used."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_vlmeval import evaluate
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.evidence import Evidence, differences, read_entry
from pytest_vlmeval.records import SpotCheck
from pytest_vlmeval.reports.wording import describe_check
from pytest_vlmeval.run.store import Store
from tests.support.postgres_server import postgres_server as postgres_server
from tests.support.postgres_server import postgres_url as postgres_url
from tests.support.run_fixtures import Project, endpoint, math_rows, properties
from tests.support.running import answers, asked, finish, most_at_once, wait_for
from tests.support.server_fixtures import ServerProcess
from tests.support.store_calls import store as store

SAMPLES = 24


def test_the_same_command_asks_nothing_again(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(6)
    first = project.ask(server.url)
    second = project.ask(server.url)
    assert len(server.requests()) == 6
    assert first.parseoutcomes() == second.parseoutcomes()


def test_stored_answers_need_no_server(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    project.write_math(6)
    server = vlm_server()
    first = project.ask(server.url)
    server.kill()
    assert project.ask(server.url).parseoutcomes() == first.parseoutcomes()


def test_fresh_asks_everything_again(project: Project, server: ServerProcess) -> None:
    project.write_math(6)
    server.control(default="1")
    project.ask(server.url)
    server.control(default="B")
    project.ask(server.url, "--vlm-fresh").assert_outcomes(passed=4, xfailed=3)
    assert len(server.requests()) == 6
    project.ask(server.url).assert_outcomes(passed=4, xfailed=3)
    assert len(server.requests()) == 6
    texts = project.stored("SELECT text, count(*) FROM answers GROUP BY text")
    assert texts == [("1", 6), ("B", 6)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_after_kill_9_only_what_is_missing_is_asked(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    arguments = [*endpoint(server.url), *workers, "--vlm-concurrency=4"]
    process = project.start(*arguments)
    wait_for(lambda: answers(project) >= 4)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    kept = answers(project)
    assert 4 <= kept < SAMPLES
    server.control(default="B")
    result = project.run(*arguments)
    result.assert_outcomes(passed=SAMPLES // 2 + 1, xfailed=SAMPLES // 2)
    assert len(server.requests()) == SAMPLES - kept
    assert answers(project) == SAMPLES


def test_interrupted_by_ctrl_c_what_came_is_kept(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    process = project.start(*endpoint(server.url), "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= 4)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in output
    assert "INTERNALERROR" not in output
    kept = answers(project)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(passed=13, xfailed=12)
    assert len(server.requests()) == SAMPLES - kept


def test_two_commands_at_once_share_the_work(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.3)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    processes = [project.start(*arguments) for _ in range(2)]
    for output in map(finish, processes):
        assert "13 passed, 1 deselected, 12 xfailed" in output
    assert [process.returncode for process in processes] == [0, 0]
    assert set(asked(server).values()) == {1}
    assert len(project.stored("SELECT 1 FROM scores")) == 1


def test_other_settings_do_not_disturb(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    processes = [
        project.start(*endpoint(server.url), f"--vlm-max-tokens={tokens}")
        for tokens in (8, 16)
    ]
    for output in map(finish, processes):
        assert "3 passed, 1 deselected, 2 xfailed" in output
    assert set(asked(server).values()) == {2}
    assert len(project.stored("SELECT 1 FROM runs")) == 2


@pytest.mark.slow
def test_xdist_gives_the_results_of_one_process(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(
        default="B",
        latency_s=0.05,
        rules=[{"contains": "<3>", "status": 400, "message": "no"}],
    )
    arguments = [*endpoint(server.url), "--vlm-concurrency=4"]
    result, alone = project.junit(*arguments)
    project.store.unlink()
    server.control(
        default="B",
        latency_s=0.05,
        rules=[{"contains": "<3>", "status": 400, "message": "no"}],
    )
    distributed_result, distributed = project.junit(*arguments, "-n", "3")
    once = Counter({f"Question <{n}>?": 1 for n in range(1, 25)})
    # A 400 is confirmed alone, unless it was alone already.
    assert asked(server) in (once, once + Counter(["Question <3>?"]))
    assert most_at_once(server, 0.05) <= 4
    assert distributed_result.ret == result.ret == 1
    # xdist does not tell what was deselected.
    outcomes = result.parseoutcomes()
    outcomes.pop("deselected", None)
    assert distributed_result.parseoutcomes() == outcomes
    for name, case in alone.items():
        other = properties(distributed[name])
        assert properties(case) | {"latency_ms": ""} == other | {"latency_ms": ""}
        assert [each.tag for each in case] == [each.tag for each in distributed[name]]
    distributed_result.stdout.fnmatch_lines(
        [
            "MathVision_MINI * 24 * 23 * 12 * 50.00 of 100  1 without a usable answer "
            "(1 failed), *"
        ]
    )


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(project: Project, server: ServerProcess) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    process = project.start(*endpoint(server.url), "-n2", "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= 4)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    output = finish(process)
    assert "crashed" in output
    assert answers(project) == SAMPLES
    once = Counter(project.stored("SELECT sample_index FROM answers"))
    assert set(once.values()) == {1}


StartServer = Callable[..., ServerProcess]

# `pytester` forgets what a test imports, and these cannot be imported twice.
for name in ("onnxruntime", "openai", "pandas", "pyarrow.parquet", "scipy.stats"):
    importlib.import_module(name)

COUNT = 40
# What vLLM says of a model; `created` is that of the request.
ENTRY = {"root": "/models/one", "created": 1_700_000_000, "owned_by": "vllm"}


@pytest.fixture
def checking(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose stored answers are checked, as by default."""
    monkeypatch.delenv("VLM_REUSE")
    monkeypatch.chdir(project.pytester.path)
    project.write_math(COUNT)
    return project


def ask(server: ServerProcess | None, *more: str, **options: object) -> str:
    """Ask what has no answer, without a session; return the line about stored ones."""
    lines: list[str] = []
    if server is not None:
        options["api_base"] = ",".join([server.url, *more])
    evaluate(
        **{  # type: ignore[arg-type]
            "model": "tiny-vlm",
            "datasets": ["MathVision_MINI"],
            "allow_modified_data": True,
            "mode": "infer",
            "progress": lines.append,
            **options,
        }
    )
    found = [line for line in lines if " from the store" in line]
    assert len(found) <= 1
    return found[0] if found else ""


def refuse(server: ServerProcess, *more: str, **options: object) -> str:
    """Ask, and return why nothing is done."""
    with pytest.raises(VlmEvalError) as raised:
        ask(server, *more, **options)
    return str(raised.value)


def answers_of(project: Project) -> int:
    (found,) = project.stored("SELECT count(*) FROM answers")
    return int(str(found[0]))


# Sessions of pytest


@pytest.mark.slow
def test_another_model_behind_the_name_stops_the_run(
    checking: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    server.control(default="A", entry=ENTRY, system_fingerprint="fp_1")
    assert ask(server) == ""
    server.control(default="B", entry=ENTRY, system_fingerprint="fp_2")
    result = checking.ask(server.url, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.errlines)
    lines = text[text.index("ERROR: ") + 7 :].strip().splitlines()
    assert lines[0].startswith(f"{COUNT} stored answers (")
    assert lines[0].endswith(
        f", {server.url}) are not of the model at hand: of 16 samples that were asked "
        "again 16 got another answer, twice the same, which is more than run-to-run "
        "noise explains."
    )
    assert lines[1:3] == [
        f"    asked now: {server.url}",
        "    system_fingerprint was fp_1 and is fp_2",
    ]
    assert lines[3].startswith("    for example MathVision_MINI-")
    assert lines[3].endswith(": stored 'A', now 'B'")
    assert lines[4:] == [
        "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always "
        "uses the stored answers as they are. If the wrong server was asked, give the "
        "right one with --vlm-api-base."
    ]
    # Twice each of 16, by one process; what they said is kept, and replaces nothing.
    assert len(server.requests()) == 32
    assert answers_of(checking) == COUNT
    assert checking.stored("SELECT count(*) FROM spot_answers") == [(32,)]
    # What the message advises.
    result = checking.ask(server.url, "-n", "2", "--vlm-reuse=always")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"{COUNT} answers: 0 asked now, {COUNT} from the store (*, {server.url}), "
            "not checked: --vlm-reuse=always"
        ]
    )
    result.stdout.no_fnmatch_line("asked: *")
    assert len(server.requests()) == 32
    right = vlm_server(default="A", entry=ENTRY, system_fingerprint="fp_1")
    assert ask(right).endswith("spot check: 16 of 16 the same")
    assert ask(server, fresh=True) == ""
    assert len(server.requests()) == 32 + COUNT


@pytest.mark.slow
def test_a_resumed_run_asks_nothing_twice_beyond_the_check(
    checking: Project, vlm_server: StartServer
) -> None:
    """By an identical server on another port, which started at another time."""
    one = vlm_server(default="B", entry=ENTRY)
    ask(one, limit=24)
    one.kill()
    two = vlm_server(default="B", entry={**ENTRY, "created": 1_800_000_000})
    result, cases = checking.junit(
        *("--vlm-model=tiny-vlm", f"--vlm-api-base={two.url}", "-n", "2"),
        *("--vlm-allow-modified-data", "--vlm-export=out", "--vlm-report=r.html"),
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"{COUNT} answers: 16 asked now, 24 from the store (*, {one.url}), "
            "spot check: 16 of 16 the same",
            # The 16 that were missing, and 16 of the check.
            "asked: 32 requests, *",
        ]
    )
    assert len(two.requests()) == 16 + 16
    assert len({str(request["text"]) for request in two.requests()}) == 32
    stored, asked = (
        properties(cases[f"test_sample[MathVision_MINI-{index}]"])
        for index in (1, COUNT)
    )
    assert stored["answer_from"] == f"the store, {one.url}"
    assert stored["answered_at"].startswith("20")
    assert asked["answer_from"] == "this session"
    found = json.loads(Path("out/results.json").read_text("utf-8"))["account"]
    assert (found["model"]["requests"], found["now"]["requests"]) == (COUNT, 32)
    assert (found["origins"]["asked"], found["origins"]["stored"]) == (16, 24)
    assert found["origins"]["endpoints"] == [one.url]
    check = found["spot_check"]
    assert (check["state"], check["same"], check["asked"]) == ("same", 16, 16)
    page = Path("r.html").read_text("utf-8")
    assert "16 asked now, 24 from the store (" in page
    assert "; 32 in this session, 16 of them of the spot check" in page
    assert "spot check: 16 of 16 the same" in page
    # Once all is stored, nothing but the check is asked, of each session's answers.
    assert ask(two).endswith("spot check: 32 of 32 the same")
    assert len(two.requests()) == 32 + 32


# Calls of `evaluate`, which makes the same check


def test_other_weights_stop_the_run_though_the_answers_are_the_same(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B", entry=ENTRY)
    ask(server)
    entry = {**ENTRY, "root": "/models/two", "created": 1_700_000_060}
    server.control(default="B", entry=entry)
    lines = refuse(server).splitlines()
    assert lines[0].endswith(") are of another model than the one at hand:")
    assert lines[1:3] == [
        f"    root was /models/one and is /models/two at {server.url}",
        "    created was 14 Nov 2023, 22:13:20 UTC and is 14 Nov 2023, 22:14:20 UTC "
        f"at {server.url}",
    ]
    assert server.requests() == []
    # A checkpoint that was moved: what the message advises is remembered.
    assert ask(server, reuse="always").endswith("not checked: --vlm-reuse=always")
    assert server.requests() == []
    assert ask(server).endswith("spot check: 16 of 16 the same")
    # It is the answers that are compared from now on.
    server.control(default="C", entry=entry)
    assert " are not of the model at hand: of 16 samples " in refuse(server)
    # A server that says less than before is no other one.
    server.control(default="B")
    assert ask(server).endswith("spot check: 16 of 16 the same")


INTERRUPTED = (
    "The check of the stored answers was interrupted. Nothing was scored. Run the same "
    "command again."
)


def test_a_check_that_is_interrupted_says_so(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    ask(server, mode="all")
    server.control(default="B", latency_s=0.5)
    page = checking.pytester.path / "report.html"
    process = checking.start(
        *endpoint(server.url), "--vlm-concurrency=1", f"--vlm-report={page}"
    )
    wait_for(lambda: bool(server.requests()))
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "another command asked them" not in output
    # Whose score that is was to be found out.
    assert "50.00" not in output
    assert "= vlmeval =" in output
    assert output.count(INTERRUPTED) == 1
    assert "vlmeval: no report is written, as nothing was scored" in output
    assert not page.exists()
    found = checking.stored(
        "SELECT state, words, json_extract(result, '$.why') FROM spot_checks "
        "WHERE words != ''"
    )
    assert found == [
        (
            "refused",
            INTERRUPTED,
            "interrupted",
        )
    ]
    check = SpotCheck(state="unchecked", why="interrupted")
    assert describe_check(check) == "not checked: interrupted"


def test_noise_is_no_other_model(checking: Project, server: ServerProcess) -> None:
    """3 of 40 answers are others than before, each time they are asked."""
    rules = [{"contains": f"<{n}>", "answer": "C"} for n in (2, 3, 4)]
    server.control(default="B")
    ask(server)
    server.control(default="B", rules=rules)
    for seed in range(4):
        assert "spot check: " in ask(server, seed=seed)
    assert len(server.requests()) <= 4 * (COUNT + 3)
    # 16 of 40 are others: it is asked until that shows.
    rules = [{"contains": f"<{n}>", "answer": "C"} for n in range(1, 17)]
    server.control(default="B", rules=rules)
    for seed in range(4):
        assert " are not of the model at hand: of " in refuse(server, seed=seed)


def test_few_that_changed_do_not_tell_and_count_anew(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    ask(server, limit=3)
    server.control(default="C")
    assert ask(server, limit=3) == (
        "3 answers: 3 asked now, 0 from the store, spot check: 0 of 3 the same "
        "(too few to tell: the new answers count)"
    )
    assert len(server.requests()) == 6
    # The earlier ones are kept too.
    assert checking.stored("SELECT text FROM answers") == [("B",)] * 3 + [("C",)] * 3
    # 4 of one session do tell.
    ask(server, limit=4, fresh=True)
    server.control(default="D")
    text = refuse(server, limit=4)
    assert "of 4 samples that were asked again 4 got another answer" in text


def test_a_server_that_fails_tells_nothing(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    ask(server)
    rule = {"status": 503, "message": "warming up"}
    server.control(rules=[rule])
    assert refuse(server, retries=0) == (
        "Whether the stored answers are this model's cannot be found out: of 16 "
        f"samples that were asked again 16 got no answer: {server.url} answered 503: "
        "warming up. Nothing was scored. Run the same command again once the model "
        "answers, or give --vlm-reuse=always to use the stored answers unchecked."
    )
    assert ask(server, reuse="always").endswith("not checked: --vlm-reuse=always")
    # One that fails is replaced by another.
    server.control(default="B", rules=[{**rule, "times": 1}])
    assert ask(server, retries=0).endswith(
        "spot check: 16 of 16 the same, 1 more without an answer"
    )


def test_a_model_that_is_loaded_here_is_checked_alike(checking: Project) -> None:
    """As if its checkpoint had been another one then."""
    demo: dict[str, object] = {"model": "demo", "datasets": ["DemoChoice"], "limit": 20}
    ask(None, **demo)
    with sqlite3.connect(checking.store) as connection:
        connection.execute(
            "UPDATE evidence SET found = json_set(found, '$.weights', 'others')"
        )
    connection.close()
    with pytest.raises(VlmEvalError) as raised:
        ask(None, **demo)
    assert str(raised.value).endswith(
        "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always "
        "uses the stored answers as they are."
    )
    always = ask(None, **demo, reuse="always")
    assert always.endswith("not checked: --vlm-reuse=always")
    assert ask(None, **demo, fresh=True) == ""
    assert answers_of(checking) == 40


def test_without_a_server_stored_answers_are_used_where_it_is_said(
    checking: Project, vlm_server: StartServer
) -> None:
    server = vlm_server(default="B")
    ask(server)
    server.kill()
    text = refuse(server)
    assert text.startswith(f"No server answers at {server.url} ")
    assert text.endswith(
        "All answers are stored, but whether they are this model's can only be found "
        "out by asking it. --vlm-mode=score or --vlm-reuse=always uses them unchecked."
    )
    told = f"{COUNT} answers: 0 asked now, {COUNT} from the store ("
    always = ask(server, reuse="always")
    assert always.startswith(told)
    assert always.endswith(", not checked: --vlm-reuse=always")
    score = ask(server, mode="score")
    assert score.startswith(told)
    assert score.endswith(", not checked: --vlm-mode=score asks nothing")


def test_the_cache_of_another_dataset_is_checked_too(
    checking: Project, server: ServerProcess
) -> None:
    rows = math_rows(COUNT)
    server.control(default="B")
    ask(server)
    # Another file, so another dataset, nearly all of which is in the cache.
    rows[0]["question"] = "Another question?"
    checking.write_math(COUNT, rows)
    server.control(default="C")
    text = refuse(server)
    assert "of 16 samples that were asked again 16 got another answer" in text
    server.control(default="B")
    line = ask(server)
    assert line.startswith(f"{COUNT} answers: 1 asked now, {COUNT - 1} from the store")
    assert f", {server.url}), spot check: 16 of 16 the same" in line
    assert len(server.requests()) == 17


def test_at_a_temperature_options_tell_and_texts_that_never_repeat_do_not(
    checking: Project, server: ServerProcess
) -> None:
    # Each answer begins with its option and goes on in one of several ways.
    rules = [{"every": each, "answer": f"B. For reason {each}"} for each in (5, 3, 2)]
    server.control(default="B. As one sees", rules=rules)
    ask(server, temperature=0.7)
    line = ask(server, temperature=0.7)
    assert line.endswith("spot check: 16 of 16 the same")
    server.control(default="C. As one sees")
    assert "16 got another answer" in refuse(server, temperature=0.7)
    # Another text each time, none of which is the stored one.
    rules = [{"first": n, "answer": f"It is number {n}"} for n in range(1, 33)]
    server.control(rules=rules)
    line = ask(server, temperature=0.7)
    assert line.endswith(
        "spot check: 0 of 16 the same, 16 differently each time, which tells nothing"
    )


def test_one_of_several_endpoints_changed(
    checking: Project, vlm_server: StartServer
) -> None:
    one, two = vlm_server(default="B"), vlm_server(default="B")
    ask(one, two.url)
    before = len(one.requests()), len(two.requests())
    # Each of them is asked the same.
    assert ask(one, two.url).endswith("spot check: 32 of 32 the same")
    after = len(one.requests()), len(two.requests())
    assert after == (before[0] + 16, before[1] + 16)
    two.control(default="C")
    text = refuse(one, two.url)
    assert " are not of the model at hand: of 16 samples " in text
    assert f"\n    asked now: {two.url}\n" in text
    # What cannot be asked is not.
    two.kill()
    assert ask(one, two.url).endswith("spot check: 16 of 16 the same")


def write_tables(*names: str, count: int = COUNT) -> list[str]:
    """Write tables of the user's own; return what selects them."""
    rows = math_rows(count)
    for name in names:
        lines = ["index\tquestion\tanswer\timage"]
        lines += [
            f"{row['index']}\t{name} {row['question']}\tB\t{row['image']}"
            for row in rows
        ]
        Path(f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return [f"{name}.tsv" for name in names]


def test_an_old_checkpoint_does_not_hide_among_the_answers_of_the_new_one(
    checking: Project, server: ServerProcess
) -> None:
    """One dataset of six: a sixth of all answers would pass for noise."""
    datasets = write_tables("old", "n1", "n2", "n3", "n4", "n5", count=16)
    server.control(default="B")
    ask(server, datasets=datasets[:1])
    server.control(default="C")
    ask(server, datasets=datasets[1:])
    lines = refuse(server, datasets=datasets).splitlines()
    assert lines[0].startswith("16 stored answers of old (")
    assert lines[0].endswith(
        f", {server.url}) are not of the model at hand: of 16 samples that were asked "
        "again 16 got another answer, twice the same, which is more than run-to-run "
        "noise explains."
    )
    # Without it nothing stops.
    line = ask(server, datasets=datasets[1:])
    assert line.endswith("spot check: 16 of 16 the same")


def test_another_root_does_not_hide_among_sessions_that_had_this_one(
    checking: Project, server: ServerProcess
) -> None:
    datasets = write_tables("old", "new", count=4)
    server.control(default="B", entry={"root": "/step-1000"})
    ask(server, datasets=datasets[:1])
    server.control(default="B", entry={"root": "/step-2000"})
    ask(server, datasets=datasets[1:])
    server.control(default="B", entry={"root": "/step-2000"})
    lines = refuse(server, datasets=datasets).splitlines()
    assert lines[0].startswith("4 stored answers of old (")
    assert lines[0].endswith(") are of another model than the one at hand:")
    assert lines[1] == (f"    root was /step-1000 and is /step-2000 at {server.url}")
    assert server.requests() == []


def test_several_datasets_take_part(checking: Project, server: ServerProcess) -> None:
    names = ("one", "two", "three")
    datasets = write_tables(*names)
    ask(server, datasets=datasets)
    server.control()
    line = ask(server, datasets=datasets, spot_check=7)
    assert f" {3 * COUNT} from the store (" in line
    assert line.endswith("spot check: 7 of 7 the same")
    asked = [str(request["text"]).split()[0] for request in server.requests()]
    assert sorted(asked.count(name) for name in names) == [2, 2, 3]


@pytest.mark.postgres
def test_runs_in_a_database_are_checked_alike(
    checking: Project, server: ServerProcess, postgres_url: str
) -> None:
    server.control(default="B")
    ask(server, store=postgres_url)
    # Another machine has its own work dir.
    line = ask(server, store=postgres_url, work_dir="elsewhere")
    assert line.endswith("spot check: 16 of 16 the same")
    server.control(default="C")
    text = refuse(server, store=postgres_url, work_dir="elsewhere")
    assert f"{COUNT} stored answers (" in text


def test_the_demo_model_is_known_by_its_weights(checking: Project) -> None:
    ask(None, model="demo", limit=4)
    line = ask(None, model="demo", limit=4)
    assert line.startswith("4 answers: 0 asked now, 4 from the store (")
    assert line.endswith(
        ", demo), spot check: the checksums of the weights are the same"
    )
    assert checking.stored("SELECT count(*) FROM spot_answers") == [(0,)]


# The store's part, and what is evidence


def test_one_process_of_a_session_checks_and_a_dead_one_is_replaced(
    store: Store,
) -> None:
    check = SpotCheck(state="same", asked=16, same=16, requests=16)
    for owner, number in (("one", 0), ("two", 1)):
        store.join(owner, "s", "r", number)
    assert store.begin_check("r", "s", "one") is None
    assert store.spot_check("s") is None
    assert store.begin_check("r", "s", "two") == ("running", "")
    store.bury(["one"])
    assert store.begin_check("r", "s", "two") is None
    store.end_check("s", check)
    store.bury(["two"])
    assert store.begin_check("r", "s", "three") == ("settled", "")
    assert store.spot_check("s") == check
    # Another session finds out for itself.
    assert store.begin_check("r", "s2", "four") is None
    store.end_check("s2", None, "another model")
    assert store.begin_check("r", "s2", "five") == ("refused", "another model")


def test_what_a_list_of_models_says() -> None:
    entry: dict[str, object] = {
        "id": "m",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "vllm",
        "root": "/models/\n one",
        "parent": None,
        "max_model_len": 4096,
        "permission": [{"id": "modelperm-1", "created": 1}],
        "digest": "x" * 1_000,
        "revision": "",
        "meta": {"size": 42, "n_params": 7},
    }
    found = read_entry(entry)
    assert found.pop("digest") == "x" * 199 + "…"
    assert found == {
        "created": "1700000000",
        "owned_by": "vllm",
        "root": "/models/ one",
        "max_model_len": "4096",
        "size_bytes": "42",
    }


def test_only_what_was_not_said_before_differs() -> None:
    def said(endpoint: str, **found: str) -> Evidence:
        return Evidence(endpoint=endpoint, found=found, at=1.0)

    then = [said("http://a/v1", root="/one"), said("http://b/v1", root="/two")]
    names = ("root", "parent", "created")
    assert differences(then, [said("http://c/v1", root="/two")], names) == []
    assert differences(then, [said("http://c/v1", parent="/x")], names) == []
    assert differences([], [said("http://c/v1", root="/x")], names) == []
    now = [said("http://c/v1", root="/three"), said("http://d/v1", root="/one")]
    assert differences(then, now, names) == [
        "root was /one or /two and is /three at http://c/v1"
    ]
    then = [said("a", created="never")]
    assert differences(then, [said("a", created="1e99")], names) == [
        "created was never and is 1e99 at a"
    ]
