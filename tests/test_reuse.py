"""Stored answers are used once they are known to be those of the model at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run_fixtures import Project, math_rows, properties
from tests.server_fixtures import ServerProcess

COUNT = 40
# What vLLM says of a model; `created` is that of the request.
ENTRY = {"root": "/models/one", "created": 1_700_000_000, "owned_by": "vllm"}


@pytest.fixture
def checking(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose stored answers are checked, as by default."""
    monkeypatch.delenv("VLM_REUSE")
    project.write_math(COUNT)
    return project


def answers_of(project: Project) -> int:
    (found,) = project.stored("SELECT count(*) FROM answers")
    return int(str(found[0]))


def error_of(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.errlines)
    return text[text.index("ERROR: ") + 7 :].strip()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_another_model_behind_the_name_stops_the_run(
    checking: Project, server: ServerProcess, workers: str
) -> None:
    server.control(default="A", entry=ENTRY, system_fingerprint="fp_1")
    first = checking.ask(server.url, "-n", workers)
    assert first.ret == 0
    first.stdout.no_fnmatch_line("*from the store*")
    server.control(default="B", entry=ENTRY, system_fingerprint="fp_2")
    text = error_of(checking.ask(server.url, "-n", workers))
    lines = text.splitlines()
    assert lines[0].startswith(f"{COUNT} stored answers (")
    assert (
        f", {server.url}) are not of the model at hand: of 16 samples that were "
        in (lines[0])
    )
    assert lines[0].endswith(
        "asked again 16 got another answer, twice the same, which is more than "
        "run-to-run noise explains."
    )
    assert lines[1] == f"    asked now: {server.url}"
    assert lines[2] == "    system_fingerprint was fp_1 and is fp_2"
    assert lines[3].startswith("    for example MathVision_MINI-")
    assert lines[3].endswith("stored 'A', now 'B'")
    assert lines[4] == (
        "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always "
        "uses the stored answers as they are. If the wrong server was asked, give the "
        "right one by --vlm-api-base."
    )
    # Twice each of 16, by one process; what they said is kept, and replaces nothing.
    assert len(server.requests()) == 32
    assert answers_of(checking) == COUNT
    assert checking.stored("SELECT count(*) FROM spot_answers") == [(32,)]
    # What the message advises.
    result = checking.ask(server.url, "-n", workers, "--vlm-reuse=always")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"{COUNT} answers: 0 asked now, {COUNT} from the store (*, {server.url}), "
            "not checked: --vlm-reuse=always"
        ]
    )
    assert len(server.requests()) == 32
    result = checking.ask(server.url, "-n", workers, "--vlm-fresh")
    assert result.ret == 0
    assert len(server.requests()) == 32 + COUNT
    result.stdout.fnmatch_lines([f"asked: {COUNT} requests, *"])
    result.stdout.no_fnmatch_line("*from the store*")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_resumed_run_asks_nothing_twice_beyond_the_check(
    checking: Project,
    vlm_server: Callable[..., ServerProcess],
    workers: str,
) -> None:
    """By an identical server on another port, which started at another time."""
    one = vlm_server(default="B", entry=ENTRY)
    checking.ask(one.url, "--vlm-limit=24")
    one.kill()
    two = vlm_server(default="B", entry={**ENTRY, "created": 1_800_000_000})
    result, cases = checking.junit(
        *("--vlm-model=tiny-vlm", f"--vlm-api-base={two.url}", "-n", workers),
        *("--vlm-allow-modified-data", "--vlm-export=out", "--vlm-report=r.html"),
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"{COUNT} answers: 16 asked now, 24 from the store (*, {one.url}), "
            "spot check: 16 of 16 the same",
            "asked: 16 requests, *",
        ]
    )
    # The 16 that were missing, and 16 of the check.
    assert len(two.requests()) == 16 + 16
    texts = [str(request["text"]) for request in two.requests()]
    assert len(set(texts)) == 32
    stored, asked = (
        properties(cases[f"test_sample[MathVision_MINI-{index}]"])
        for index in (1, COUNT)
    )
    assert stored["answer_from"] == f"the store, {one.url}"
    assert stored["answered_at"].startswith("20")
    assert asked["answer_from"] == "this session"
    found = json.loads(Path("out/results.json").read_text())["account"]
    assert found["model"]["requests"] == COUNT
    assert found["now"]["requests"] == 16
    assert (found["origins"]["asked"], found["origins"]["stored"]) == (16, 24)
    assert found["origins"]["endpoints"] == [one.url]
    assert found["spot_check"]["state"] == "same"
    assert (found["spot_check"]["same"], found["spot_check"]["asked"]) == (16, 16)
    page = Path("r.html").read_text()
    assert "24 from the store" in page
    # Once all is stored, nothing but the check is asked.
    checking.ask(two.url, "-n", workers)
    assert len(two.requests()) == 32 + 16


def test_other_weights_stop_the_run_though_the_answers_are_the_same(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B", entry=ENTRY)
    checking.ask(server.url)
    entry = {**ENTRY, "root": "/models/two", "created": 1_700_000_060}
    server.control(default="B", entry=entry)
    lines = error_of(checking.ask(server.url)).splitlines()
    assert lines[0].endswith(") are of another model than the one at hand:")
    assert lines[1:3] == [
        f"    root was /models/one and is /models/two at {server.url}",
        "    created was 14 Nov 2023, 22:13:20 UTC and is 14 Nov 2023, 22:14:20 UTC "
        f"at {server.url}",
    ]
    assert server.requests() == []
    # A server that says less than before is no other one.
    server.control(default="B")
    assert checking.ask(server.url).ret == 0


def test_noise_is_no_other_model(checking: Project, server: ServerProcess) -> None:
    """Of 40 answers 3 are others than before, each time."""
    rules = [{"contains": f"<{n}>", "answer": "C"} for n in (2, 3, 4)]
    server.control(default="B")
    checking.ask(server.url)
    server.control(default="B", rules=rules)
    result = checking.ask(server.url)
    assert result.ret == 0
    (line,) = (line for line in result.outlines if "from the store" in line)
    assert "spot check: " in line
    assert 16 <= len(server.requests()) <= COUNT + 3


def test_few_that_changed_do_not_tell_and_count_anew(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    checking.ask(server.url, "--vlm-limit=3")
    server.control(default="C")
    result = checking.ask(server.url, "--vlm-limit=3")
    result.stdout.fnmatch_lines(
        [
            "3 answers: 3 asked now, 0 from the store, spot check: 0 of 3 the same "
            "(too few to tell: the new answers count)"
        ]
    )
    assert len(server.requests()) == 6
    # 4 do tell.
    checking.ask(server.url, "--vlm-limit=4", "--vlm-reuse=always")
    server.control(default="D")
    text = error_of(checking.ask(server.url, "--vlm-limit=4"))
    assert "of 4 samples that were asked again 4 got another answer" in text


def test_a_server_that_fails_tells_nothing(
    checking: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    checking.ask(server.url)
    server.control(rules=[{"status": 503, "message": "warming up"}])
    text = error_of(checking.ask(server.url, "--vlm-retries=0"))
    assert text == (
        "Whether the stored answers are this model's cannot be found out: of 16 "
        f"samples that were asked again 16 got no answer: {server.url} answered 503: "
        "warming up. Nothing was scored. Run the same command again once the model "
        "answers, or give --vlm-reuse=always to use the stored answers unchecked."
    )


def test_without_a_server_stored_answers_are_used_where_it_is_said(
    checking: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    server = vlm_server(default="B")
    first = checking.ask(server.url)
    server.kill()
    text = error_of(checking.ask(server.url))
    assert text.startswith(f"No server answers at {server.url} ")
    assert text.endswith(
        "All answers are stored, but whether they are this model's can only be found "
        "out by asking it. --vlm-mode=score or --vlm-reuse=always uses them unchecked."
    )
    for option in ("--vlm-mode=score", "--vlm-reuse=always"):
        again = checking.ask(server.url, option)
        assert again.parseoutcomes() == first.parseoutcomes()
    again.stdout.fnmatch_lines([f"{COUNT} answers: 0 asked now, {COUNT} from the *"])


def test_the_cache_of_another_dataset_is_checked_too(
    checking: Project, server: ServerProcess
) -> None:
    rows = math_rows(COUNT)
    server.control(default="B")
    checking.ask(server.url)
    # Another file, so another dataset, nearly all of which is in the cache.
    rows[0]["question"] = "Another question?"
    checking.write_math(COUNT, rows)
    server.control(default="C")
    text = error_of(checking.ask(server.url))
    assert "of 16 samples that were asked again 16 got another answer" in text
    server.control(default="B")
    result = checking.ask(server.url)
    result.stdout.fnmatch_lines(
        [f"{COUNT} answers: 1 asked now, {COUNT - 1} from the store (*), *16 of 16 *"]
    )
    assert len(server.requests()) == 17


def test_at_a_temperature_texts_differ_and_options_tell(
    checking: Project, server: ServerProcess
) -> None:
    hot = "--vlm-temperature=0.7"
    # Each answer begins with its option and goes on differently each time.
    rules = [
        {"every": every, "answer": f"B. For the reason {every}"} for every in (5, 3, 2)
    ]
    server.control(default="B. As one sees", rules=rules)
    assert checking.ask(server.url, hot).ret == 0
    result = checking.ask(server.url, hot)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*spot check: 16 of 16 the same"])
    server.control(default="C. As one sees")
    assert "16 got another answer" in error_of(checking.ask(server.url, hot))
    server.control(rules=[{"echo": True, "rate": 0.0}], default="no letter")
    text = error_of(checking.ask(server.url, hot))
    assert "now 'no letter'" in text


def test_several_endpoints_one_of_which_changed(
    checking: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    one, two = vlm_server(default="B"), vlm_server(default="B")
    both = f"--vlm-api-base={one.url},{two.url}"
    checking.ask(one.url, both)
    two.control(default="C", entry=ENTRY)
    text = error_of(checking.ask(one.url, both))
    assert "are not of the model at hand" in text


def test_evaluate_checks_as_a_session_does(
    checking: Project, server: ServerProcess
) -> None:
    checking.pytester.makepyfile(
        call=f"""
        import sys
        from pytest_vlmeval import evaluate
        from pytest_vlmeval.errors import VlmEvalError

        try:
            results = evaluate(
                "tiny-vlm",
                ["MathVision_MINI"],
                api_base="{server.url}",
                allow_modified_data=True,
                progress=print,
            )
        except VlmEvalError as error:
            sys.exit(f"refused: {{error}}")
        print(results.score("MathVision_MINI").value)
        """
    )
    server.control(default="B")
    assert checking.pytester.runpython(Path("call.py")).ret == 0
    again = checking.pytester.runpython(Path("call.py"))
    again.stdout.fnmatch_lines([f"{COUNT} answers: 0 asked now, *16 of 16 the same"])
    server.control(default="C")
    changed = checking.pytester.runpython(Path("call.py"))
    assert changed.ret == 1
    changed.stderr.fnmatch_lines([f"refused: {COUNT} stored answers (* are not of *"])


def test_the_demo_model_is_known_by_its_weights(checking: Project) -> None:
    demo = ("--vlm-model=demo", "--vlm-allow-modified-data", "--vlm-limit=4")
    checking.run(*demo)
    result = checking.run(*demo)
    result.stdout.fnmatch_lines(
        [
            "4 answers: 0 asked now, 4 from the store (*, demo), spot check: the "
            "checksums of the weights are the same"
        ]
    )
    assert checking.stored("SELECT count(*) FROM spot_answers") == [(0,)]
