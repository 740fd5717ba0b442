"""Gates in whole sessions: what passes and fails, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.run_fixtures import Project, endpoint, picture, properties, write_table
from tests.server_fixtures import ServerProcess

OWN = """
from pytest_vlmeval import Benchmark

class TestOwn(Benchmark):
    datasets = [{datasets}]
"""


def write_own(
    project: Project, *names: str, samples: int = 20, shared: int = 1
) -> None:
    """Write tables of open questions `NAME <n>?`, `shared` of them to a picture."""
    import base64

    for name in names:
        rows = [
            {
                "index": str(n),
                "question": f"{name} <{n}>?",
                "answer": "red",
                "category": "even" if n % 2 == 0 else "odd",
                "image": base64.b64encode(picture(n // shared)).decode(),
            }
            for n in range(samples)
        ]
        write_table(project.pytester.path / f"{name}.tsv", rows)
    datasets = ", ".join(f"'{name}.tsv'" for name in names)
    project.pytester.makepyfile(test_own=OWN.format(datasets=datasets))


def answers(server: ServerProcess, **wrong: int) -> None:
    """Answer `red`, but for the first `wrong` questions of each dataset."""
    rules = [
        {"contains": f"{name} <{n}>", "answer": "blue"}
        for name, count in wrong.items()
        for n in range(count)
    ]
    server.control(default="red", rules=rules)


def write_thresholds(project: Project, text: str) -> None:
    (project.pytester.path / "thresholds.toml").write_text(text)


def gates(project: Project) -> list[dict[str, object]]:
    """Return what the store has of gates, in the order of datasets."""
    rows = project.stored("SELECT result FROM gates ORDER BY dataset, gate, metric")
    return [json.loads(str(result)) for (result,) in rows]


def block(text: str) -> list[str]:
    """Make what a block says lines for `fnmatch_lines`, brackets taken literally."""
    lines = text.strip("\n").splitlines()
    return [line.replace("[", "[[]") for line in lines]


def test_a_score_below_its_threshold_fails_with_one_block(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one", samples=40, shared=2)
    answers(server, one=30)
    write_thresholds(
        project, "[tiny-vlm.'one.tsv']\nmin = 60\nsource = 'Table 3 of a paper'"
    )
    result, cases = project.junit(*endpoint(server.url), "-k", "test_score")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        block("""
one: Overall is below its threshold.
  value      25.00 of 100 [12.07, 44.72], 90 % Wilson, clustered
  threshold  60.00 for tiny-vlm, rule confident-below at level 0.95
  source     Table 3 of a paper
  p          0.00351 of a true value of at least the threshold
  samples    40 in 20 clusters (of one picture or group)
  worst      even 5/20 (25 %), odd 5/20 (25 %)
  see        the same command with -k 'test_sample and one' -rx lists the wrong *
"""),
        consecutive=True,
    )
    found = properties(cases["test_score[one]"])
    assert found["threshold gate of Overall: outcome"] == "failed"
    assert "90 % Wilson, clustered" in found["threshold gate of Overall: interval"]
    assert found["threshold gate of Overall: reason"].startswith("one: Overall is")
    assert found["completeness gate: outcome"] == "passed"


RULES = """
[tiny-vlm.'below.tsv']
min = 80
[tiny-vlm.'above.tsv']
min = 80
rule = 'confident-above'
[tiny-vlm.'point.tsv']
min = 80
rule = 'point'
[tiny-vlm.'proven.tsv']
min = 40
rule = 'confident-above'
[tiny-vlm.'likely.tsv']
min = 70
rule = 'confident-above'
"""


def test_rules_and_what_is_inconclusive(
    project: Project, server: ServerProcess
) -> None:
    """Every table has 15 of 20 right: below 80, above 40 and 70."""
    write_own(project, "below", "above", "point", "proven", "likely")
    answers(server, below=5, above=5, point=5, proven=5, likely=5)
    write_thresholds(project, RULES)
    select = ("-k", "test_score")
    result = project.ask(server.url, *select)
    result.assert_outcomes(passed=2, failed=3)
    found = {str(gate["dataset"]): gate for gate in gates(project)}
    outcomes = {name: (gate["outcome"], gate["fails"]) for name, gate in found.items()}
    assert outcomes == {
        "below": ("inconclusive", False),
        "above": ("failed", True),
        "point": ("failed", True),
        "proven": ("passed", False),
        "likely": ("inconclusive", True),
    }
    result.stdout.fnmatch_lines(
        [
            "likely: Overall is too close to its threshold to tell. It fails "
            "(--vlm-inconclusive).",
            "  needed     about 5?? samples to tell a difference of this size *",
        ]
    )
    project.ask(server.url, *select, "--vlm-inconclusive=fail").assert_outcomes(
        passed=1, failed=4
    )
    project.ask(server.url, *select, "--vlm-inconclusive=pass").assert_outcomes(
        passed=3, failed=2
    )


def test_without_a_threshold_a_score_passes_and_says_so(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    answers(server, one=20)
    write_thresholds(project, "['other-*'.'one.tsv']\nmin = 60")
    result, cases = project.junit(*endpoint(server.url), "-k", "test_score")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    found = properties(cases["test_score[one]"])
    assert found["threshold gate of Overall: reason"] == (
        "one: Overall = 0.00 passes whatever it is: no threshold is for tiny-vlm "
        f"({project.pytester.path / 'thresholds.toml'})."
    )
    assert found["threshold gate of Overall: interval"] == "[0.00, 11.92], 90 % Wilson"


def test_further_metrics_may_have_thresholds(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(20)
    server.control(default="B")
    write_thresholds(
        project,
        """
        [tiny-vlm.MathVision_MINI.metrics."counting/acc"]
        min = 90
        [tiny-vlm.MathVision_MINI.metrics."Overall/tot"]
        min = 30
        """,
    )
    result = project.ask(server.url, "-k", "test_score")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI: counting/acc is below its threshold.",
            "  value      50.00 [[]26.*], 90 % Wilson",
            "  samples    10",
            "MathVision_MINI: Overall/tot is below its threshold.",
            "  value      20.00, no interval: single verdicts do not make it",
            "  threshold  30.00 for tiny-vlm, rule point (confident-below needs an "
            "interval)",
        ]
    )


def test_a_misspelt_metric_fails_once_and_is_refused_then(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    answers(server)
    write_thresholds(project, "[tiny-vlm.'one.tsv'.metrics.Overal]\nmin = 60")
    says = (
        f"{project.pytester.path / 'thresholds.toml'}: one has no metric 'Overal'. Did "
        "you mean Overall? It has: Overall, even, odd."
    )
    result = project.ask(server.url, "-k", "test_score")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([says])
    asked = len(server.requests())
    result = project.ask(server.url, "-k", "test_score", "--vlm-fresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])
    assert len(server.requests()) == asked


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_a_misspelt_dataset_is_a_usage_error(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    write_own(project, "one")
    write_thresholds(project, "['*'.MMStarr]\nmin = 60")
    result = project.ask(server.url, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *'MMStarr'] names no dataset. Did you mean *"])
    assert not server.requests()


def test_a_threshold_out_of_reach_is_told(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    answers(server)
    write_thresholds(project, "[tiny-vlm.'one.tsv']\nmin = 600")
    result = project.ask(server.url, "-k", "test_score")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*thresholds.toml: min = 600 for one can never be reached: Overall goes "
            "from 0 to 100."
        ]
    )


def test_missing_answers_fail_unless_they_are_few_enough(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    no = {"contains": "one <3>", "status": 400, "message": "no"}
    server.control(default="red", rules=[no])
    select = ("-k", "test_score")
    result = project.ask(server.url, *select)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "one: 1 of 20 samples have no usable answer and count as wrong in Overall "
            "= 95.00. The items of these samples say why; the same command asks only "
            "them again."
        ]
    )
    project.ask(server.url, *select, "--vlm-min-answered=95").assert_outcomes(passed=1)
    said = [str(gate["message"]) for gate in gates(project)]
    assert (
        "one: 1 of 20 samples have no usable answer and 0 were not decided by the "
        "judge, which is allowed (answered at least 95 %, judged at least 99 %). All "
        "count as wrong."
    ) in said
    result = project.ask(server.url, *select, "--vlm-min-answered=96")
    result.stdout.fnmatch_lines(["* At least 96 % have to be answered. *"])


def test_answers_that_were_cut_off_have_their_own_sentence(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    cut = {"contains": "one <3>", "answer": "red or", "finish_reason": "length"}
    server.control(default="red", rules=[cut])
    select = ("-k", "test_score", "--vlm-min-answered=90")
    result = project.ask(server.url, *select)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "one: 1 of 20 answers were cut off at the token limit and count as wrong "
            "in Overall = 95.00; at most 1 % may be. Raise --vlm-max-tokens, or allow "
            "more by --vlm-max-cut-off."
        ]
    )
    project.ask(server.url, *select, "--vlm-max-cut-off=5").assert_outcomes(passed=1)


def test_modified_data_may_be_refused_in_gates(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    server.control(default="B")
    select = ("-k", "test_score")
    project.ask(server.url, *select).assert_outcomes(passed=1)
    result = project.ask(server.url, *select, "--vlm-refuse-modified-data")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI: its file is not the published one, so Overall/acc (exact "
            "matching) = 50.00 cannot be compared with other scores. Take the "
            "published file, or leave out --vlm-refuse-modified-data."
        ]
    )


FDR = """
['*'.'a.tsv']
min = 80
['*'.'b.tsv']
min = 80
['*'.'c.tsv']
min = 80
['*'.'d.tsv']
min = 80
"""


@pytest.mark.parametrize("workers", [[], ["-n", "3"]], ids=["one", "xdist"])
def test_many_gates_raise_no_more_false_alarms_than_one(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    """Alone a fails with p = 0.032; among four gates only b does (Benjamini-Hochberg).

    P(X <= 12) of a binomial of 20 and 0.8 is 0.0321, more than Wilson's 0.0127; b has
    5 of 20 right, c and d more than 80 %.
    """
    write_own(project, "a", "b", "c", "d")
    answers(server, a=8, b=15, c=3, d=2)
    write_thresholds(project, FDR)
    arguments = [*endpoint(server.url), "-k", "test_score", *workers]
    project.run(*arguments).assert_outcomes(passed=2, failed=2)
    result = project.run(*arguments, "--vlm-fdr=0.05")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["b: Overall is below its threshold.", "*among all gates, alarm up to 0.05"]
    )
    found = {
        str(gate["dataset"]): gate
        for gate in gates(project)
        if gate["gate"] == "threshold" and gate["adjusted_p_value"] is not None
    }
    assert [found[name]["outcome"] for name in "abcd"] == [
        "inconclusive",
        "failed",
        "passed",
        "passed",
    ]
    assert found["a"]["p_value"] == pytest.approx(0.0321, abs=0.0001)
    # Of four, the second smallest times 4 / 2.
    assert found["a"]["adjusted_p_value"] == pytest.approx(0.0643, abs=0.0002)


def test_gates_of_one_process_and_of_several_are_the_same(
    project: Project,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_own(project, "a", "b", "c", samples=18, shared=3)
    answers(server, a=8, b=18)
    write_thresholds(project, "['*'.'a.tsv']\nmin = 80\n['*'.'b.tsv']\nmin = 80")
    found: list[object] = []
    summaries: list[list[str]] = []
    for workers in ([], ["-n", "3"]):
        summary = tmp_path / f"summary-{len(found)}.md"
        summary.write_text("# Of another step\n")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        result = project.ask(server.url, "--vlm-fdr=0.1", *workers)
        result.stdout.fnmatch_lines(
            [
                "gates: 4 passed, 1 inconclusive, 1 failed; without a threshold: c",
                "gates: a: Overall is too close to its threshold to tell. It passes *",
                "gates: b: Overall is below its threshold.",
            ]
        )
        found.append(gates(project))
        summaries.append(summary.read_text().splitlines())
        assert len(gates(project)) == 6
        project.store.unlink()
    assert found[0] == found[1]
    assert summaries[0] == summaries[1]
    lines = summaries[0]
    assert lines[:2] == ["# Of another step", "## vlmeval: tiny-vlm, 1 of 6 gates fail"]
    assert lines[5].startswith("| b | threshold: Overall | failed | 0.00 | [0.00, ")
    assert "90 % Wilson, clustered | 80.00 | b: Overall is below its" in lines[5]
    assert "<br>  threshold  80.00 for *, rule confident-below" in lines[5]
    assert len(lines) == 5 + 6 + 1
