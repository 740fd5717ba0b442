"""Samples and scores as pytest items: outcomes, selection, reports."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.support.run_fixtures import Project, endpoint, math_rows, properties
from tests.support.server_fixtures import ServerProcess

# Free answers of the odd indexes, right but for 5; options are always answered B.
ANSWERS = {"<1>": "10", "<3>": "30", "<5>": "51", "<7>": "70"}


@pytest.fixture
def answering(server: ServerProcess) -> ServerProcess:
    """Give a server that answers all but one of the first eight questions right."""
    server.control(answers=ANSWERS, default="B")
    return server


def test_right_passes_wrong_is_xfailed_and_the_score_passes(
    project: Project, answering: ServerProcess
) -> None:
    project.write_math(8)
    result = project.ask(answering.url, "-rx")
    result.assert_outcomes(passed=8, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "vlmeval: model tiny-vlm at http://127.0.0.1:*, exact matching (no judge), "
            "store *.vlmeval",
            "dataset * samples  answered  correct  main metric",
            "MathVision_MINI * 8 * 8 * 7 *87.50 of 100*modified data",
            "XFAIL test_math.py::TestMath::test_sample[[]MathVision_MINI-5[]] - "
            "answered 51, reference 50",
        ]
    )


def test_images_are_sent_as_the_datasets_own_bytes(
    project: Project, answering: ServerProcess
) -> None:
    project.write_math(4)
    project.ask(answering.url)
    sent = {}
    for request in answering.requests():
        images = request["images"]
        assert isinstance(images, list)
        text = request["text"]
        assert isinstance(text, str)
        sent[text] = [(image["sha256"], image["media_type"]) for image in images]
        assert request["params"] == {"max_tokens": 2048, "temperature": 0}
        assert request["order"] == ["image_url", "text"]
    assert sent == {
        row["question"]: [
            (
                hashlib.sha256(base64.b64decode(row["image"])).hexdigest(),
                "image/png" if int(row["index"]) % 2 else "image/jpeg",
            )
        ]
        for row in math_rows(4)
    }


def test_junit_carries_answers_and_metrics(
    project: Project, answering: ServerProcess
) -> None:
    project.write_math(8)
    _, cases = project.junit(*endpoint(answering.url), "--vlm-properties=all")
    wrong = cases["test_sample[MathVision_MINI-5]"]
    assert properties(wrong) == {
        "dataset": "MathVision_MINI",
        "index": "5",
        "category": "algebra",
        "reference": "50",
        "state": "answered",
        "answer": "51",
        "latency_ms": properties(wrong)["latency_ms"],
        "answer_from": "this session",
        "verdict": "wrong",
    }
    skipped = wrong.find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "answered 51, reference 50"
    assert properties(cases["test_sample[MathVision_MINI-1]"])["verdict"] == "correct"
    score = properties(cases["test_score[MathVision_MINI]"])
    assert score["score"] == "87.5"
    assert score["samples"] == score["answered"] == "8"
    assert score["correct"] == "7"
    assert score["modified_data"] == "true"
    assert float(score[f"metric: {score['main_metric']}"]) == 87.5
    assert score["scorer"]
    # On demand only.
    _, cases = project.junit(*endpoint(answering.url), "-k", "test_score")
    main = properties(cases["test_score[MathVision_MINI]"])
    assert main.items() < score.items()
    assert not [name for name in (*main, "scorer") if name.startswith("metric: ")]
    assert "scorer" not in main
    assert main[f"threshold gate of {main['main_metric']}: reason"].startswith(
        "MathVision_MINI: Overall/acc (exact matching) = 87.50"
    )


def test_unusable_answers_fail_and_the_score_says_so(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(8)
    server.control(
        answers=ANSWERS,
        default="B",
        rules=[
            {"contains": "<2>", "status": 400, "message": "image is broken"},
            {
                "contains": "<4>",
                "finish_reason": "length",
                "answer": "It is clear that",
            },
            {"contains": "<6>", "answer": "  "},
            {"contains": "<8>", "status": 500, "message": "out of memory"},
        ],
    )
    result = project.ask(server.url, "-rx")
    result.assert_outcomes(passed=3, xfailed=2, failed=4)
    assert result.ret == 1
    lines = [
        "MathVision_MINI-2 has no usable answer: *400*image is broken*",
        "MathVision_MINI-6 has no usable answer: the model returned an empty text.",
        "MathVision_MINI-8 has no usable answer: *500*out of memory* (asked 2 times)",
        "MathVision_MINI: 3 of 8 samples have no usable answer and count as wrong in * "
        "= 37.50. The items of these samples say why; the same command asks only them "
        "again.",
        "MathVision_MINI: 1 of 8 answers was cut off at the token limit, *",
        "MathVision_MINI * 8 * 5 * 3 *37.50 of 100  3 without a usable answer "
        "(1 empty, 2 failed), 1 cut off at the token limit, *data",
        "*MathVision_MINI-4* answered It is clear that, reference B (cut off at the "
        "token limit after 4 tokens: raise --vlm-max-tokens)*",
    ]
    result.stdout.fnmatch_lines(lines)


def test_failed_samples_are_asked_again_by_last_failed(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(8)
    server.control(
        answers=ANSWERS,
        default="B",
        rules=[{"contains": "<2>", "status": 400, "message": "no"}],
    )
    project.ask(server.url).assert_outcomes(passed=6, xfailed=1, failed=2)
    server.control(answers=ANSWERS, default="B")
    result = project.ask(server.url, "--lf")
    result.assert_outcomes(passed=2)
    assert [request["text"] for request in server.requests()] == ["Question <2>?"]


@pytest.mark.parametrize(
    ("arguments", "asked", "passed"),
    [
        (["-k", "MathVision_MINI-7"], {7}, 1),
        (["-k", "test_sample and not MINI"], set(), 0),
        (["test_math.py::TestMath::test_sample[MathVision_MINI-3]"], {3}, 1),
        (["--vlm-limit=2"], {1, 2}, 3),
        (["-k", "test_score", "--vlm-limit=3"], {1, 2, 3}, 1),
        (["-m", "not vlm and nothing"], set(), 0),
    ],
)
def test_only_what_is_selected_is_asked(
    project: Project,
    answering: ServerProcess,
    arguments: list[str],
    asked: set[int],
    passed: int,
) -> None:
    project.write_math(8)
    result = project.ask(answering.url, *arguments)
    result.assert_outcomes(passed=passed, deselected=result_deselected(result))
    texts = {request["text"] for request in answering.requests()}
    assert texts == {f"Question <{index}>?" for index in asked}


def result_deselected(result: pytest.RunResult) -> int:
    """Return how many items pytest counts as deselected."""
    return result.parseoutcomes().get("deselected", 0)


def test_collecting_lists_ids_and_asks_nothing(
    project: Project, answering: ServerProcess
) -> None:
    project.write_math(2)
    result = project.ask(answering.url, "--collect-only", "-q")
    result.stdout.fnmatch_lines(
        [
            "test_math.py::TestMath::test_sample[[]MathVision_MINI-1[]]",
            "test_math.py::TestMath::test_sample[[]MathVision_MINI-2[]]",
            "test_math.py::TestMath::test_score[[]MathVision_MINI[]]",
        ]
    )
    assert answering.requests(None) == []
    assert not project.store.exists()


def test_exitfirst_stops_the_run(project: Project, server: ServerProcess) -> None:
    project.write_math(6)
    server.control(rules=[{"contains": "<1>", "status": 400, "message": "no"}])
    result = project.ask(server.url, "-x")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])


def test_own_tests_use_the_fixtures(project: Project, answering: ServerProcess) -> None:
    project.write_math(8)
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.vlm("MathVision_MINI")
        def test_answers_are_short(vlm_sample):
            assert len(vlm_sample.answer.text) < 3

        @pytest.mark.vlm("MathVision_MINI")
        def test_good_enough(vlm_score, vlm_run):
            assert vlm_run.settings.model == "tiny-vlm"
            assert vlm_score.value > 80
            assert vlm_score.metrics
        """
    )
    result = project.ask(answering.url, "test_own.py")
    result.assert_outcomes(passed=9)


def test_a_fixture_without_a_dataset_is_explained(project: Project) -> None:
    project.pytester.makepyfile(test_own="def test_one(vlm_sample): pass")
    result = project.run("--vlm-model=demo")
    result.stdout.fnmatch_lines(
        [
            "test_own.py::test_one uses a vlmeval fixture but names no dataset (given: "
            '()). Mark it with @pytest.mark.vlm("MMStar"), or put it into a Benchmark '
            'class with datasets = ["MMStar"].'
        ]
    )
    assert result.ret != 0


def test_infer_then_score(project: Project, answering: ServerProcess) -> None:
    project.write_math(8)
    first = project.ask(answering.url, "--vlm-mode=infer", "-rs")
    first.assert_outcomes(passed=8, skipped=1)
    first.stdout.fnmatch_lines(
        ["SKIPPED * --vlm-mode=infer only asks; score with --vlm-mode=score"]
    )
    asked = len(answering.requests())
    second = project.ask(answering.url, "--vlm-mode=score")
    second.assert_outcomes(passed=8, xfailed=1)
    assert len(answering.requests()) == asked == 8


def test_score_mode_without_answers_says_what_to_do(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    result = project.ask(server.url, "--vlm-mode=score")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "No answer is stored for this sample, and --vlm-mode=score never asks. Run "
            "once with --vlm-mode=infer or all.",
            "MathVision_MINI has no score: none of its samples was answered.",
        ]
    )
    assert server.requests(None) == []
    server.control(default="B")
    project.ask(server.url, "--vlm-mode=infer").assert_outcomes(passed=2, skipped=1)
    asked = len(server.requests())
    scored = project.ask(server.url, "--vlm-mode=score")
    scored.assert_outcomes(passed=2, xfailed=1)
    assert len(server.requests()) == asked


def test_set_ups_are_among_the_durations_that_are_asked_for(
    project: Project, answering: ServerProcess
) -> None:
    project.write_math(2)
    result = project.ask(answering.url, "--durations=0", "-vv")
    result.stdout.fnmatch_lines(["* setup *test_sample*MathVision_MINI-1*"])
