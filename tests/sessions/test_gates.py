"""Gates in whole sessions: what passes and fails, and what had nothing to gate."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import CATALOG
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.thresholds import load_thresholds
from pytest_vlmeval.suite.selection import is_narrowed
from tests.support.gated_tables import (
    answers,
    block,
    gates,
    newest_gates,
    thresholds_of,
    write_own,
)
from tests.support.judged_sessions import GRADED
from tests.support.run_fixtures import (
    Project,
    endpoint,
    image_bytes,
    math_rows,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

SELECT = ("-k", "test_score")
RULES = """
[tiny-vlm.'one.tsv']
min = 60
source = 'Table 3 of a paper'
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
[tiny-vlm.'far.tsv']
min = 600
['other-*'.'none.tsv']
min = 60
[tiny-vlm.'none.tsv']
"""
RULED = ("one", "below", "above", "point", "proven", "likely", "far", "none")
# What each gate finds, and whether it fails; `far` has none, as nothing reaches 600.
OUTCOMES = {
    "one": ("failed", True),
    "below": ("inconclusive", False),
    "above": ("failed", True),
    "point": ("failed", True),
    "proven": ("passed", False),
    "likely": ("inconclusive", True),
    "none": ("passed", False),
}
BLOCK = """
one: Overall is below its threshold.
  value      25.00 of 100 [12.07, 44.72], 90 % Wilson, clustered
  threshold  60.00 for tiny-vlm, rule confident-below at level 0.95
  source     Table 3 of a paper
  p          0.00351 of a true value of at least the threshold
  samples    40 in 20 clusters (of one image or group)
  worst      even 5/20 (25 %), odd 5/20 (25 %)
  see        the same command with -k 'test_sample and one' --vlm-wrong=xfail -rx *
"""


def test_rules_decide_and_every_message_is_one_block(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every table has 30 of 40 right, two to an image, but for one: 10; none: 0."""
    write_own(project, *RULED, samples=40, shared=2)
    answers(server, **dict.fromkeys(RULED, 10) | {"one": 30, "none": 40})
    thresholds_of(project).write_text(RULES)
    result, cases = project.junit(*endpoint(server.url), *SELECT)
    result.assert_outcomes(passed=3, failed=5)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = {
        name: (gate["outcome"], gate["fails"])
        for (name, kind), gate in newest_gates(project).items()
        if kind == "threshold"
    }
    assert outcomes == OUTCOMES
    result.stdout.fnmatch_lines(block(BLOCK), consecutive=True)
    result.stdout.fnmatch_lines(
        [
            "likely: Overall is too close to its threshold to tell. It fails "
            "(--vlm-inconclusive).",
            "  needed     about * samples to tell a difference of this size *",
            "*thresholds.toml: min = 600 for far can never be reached: Overall goes "
            "from 0 to 100.",
        ]
    )
    found = properties(cases["test_score[one]"])
    assert found["threshold gate of Overall: outcome"] == "failed"
    assert "90 % Wilson, clustered" in found["threshold gate of Overall: interval"]
    assert found["threshold gate of Overall: reason"].startswith("one: Overall is")
    assert found["completeness gate: outcome"] == "passed"
    found = properties(cases["test_score[none]"])
    assert found["threshold gate of Overall: reason"] == (
        "none: Overall = 0.00. No threshold for tiny-vlm in "
        f"{thresholds_of(project)}: any score passes."
    )
    assert found["threshold gate of Overall: interval"].startswith("[0.00, ")
    for how, passed in (("fail", 2), ("pass", 4)):
        again = project.ask(server.url, *SELECT, f"--vlm-inconclusive={how}")
        again.assert_outcomes(passed=passed, failed=8 - passed)
    # What the block advises, whatever the environment or an ini file says.
    monkeypatch.setenv("VLM_WRONG", "pass")
    asked = len(server.requests())
    advised = ("-k", "test_sample and one", "--vlm-wrong=xfail", "-rx")
    seen = project.ask(server.url, *advised)
    # `one` is also in `none`.
    seen.assert_outcomes(passed=10, xfailed=30 + 40)
    assert seen.stdout.str().count("answered blue, reference red") == 30 + 40
    assert len(server.requests()) == asked


def test_further_metrics_may_have_thresholds(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(20)
    server.control(default="B")
    thresholds_of(project).write_text(
        """
        [tiny-vlm.MathVision_MINI.metrics."counting/acc"]
        min = 90
        [tiny-vlm.MathVision_MINI.metrics."Overall/tot"]
        min = 30
        """
    )
    result = project.ask(server.url, *SELECT)
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
    thresholds_of(project).write_text("[tiny-vlm.'one.tsv'.metrics.Overal]\nmin = 60")
    says = (
        f"{thresholds_of(project)}: one has no metric 'Overal'. Did "
        "you mean Overall? It has: Overall, even, odd."
    )
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([says])
    asked = len(server.requests())
    result = project.ask(server.url, *SELECT, "--vlm-fresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])
    assert len(server.requests()) == asked


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_a_misspelt_dataset_is_a_usage_error(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    write_own(project, "one")
    thresholds_of(project).write_text("['*'.MMStarr]\nmin = 60")
    result = project.ask(server.url, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *'MMStarr'] names no dataset. Did you mean *"])
    assert not server.requests()


PUBLISHED = """
["*"]
[tiny-vlm.DemoChoice]
min = 99
published = true
[tiny-vlm.MathVision_MINI]
min = 99
published = true
[tiny-vlm.'own.tsv']
min = 99
published = true
"""
OF_ALL = """
from pytest_vlmeval import Benchmark

class TestAll(Benchmark):
    datasets = ["DemoChoice", "MathVision_MINI", "own.tsv"]
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_a_published_threshold_is_for_all_samples_of_the_published_data(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    """A few samples, a table of one's own or a changed file are held against none."""
    write_own(project, "own")
    project.write_math(4)
    project.pytester.makepyfile(test_own=OF_ALL, test_math="")
    server.control(default="Z")
    path = thresholds_of(project)
    path.write_text(PUBLISHED)
    said = f"vlmeval: the published thresholds in {path} do not apply ("
    whole = project.ask(server.url, *SELECT, *workers)
    whole.assert_outcomes(passed=2, failed=1)
    whole.stdout.fnmatch_lines(["DemoChoice: Overall is below its threshold."])
    line = f"{said}MathVision_MINI: modified data; own: a table of your own)"
    assert whole.outlines.count(line) == 1
    part, cases = project.junit(
        *endpoint(server.url), *SELECT, "--vlm-limit=3", *workers
    )
    part.assert_outcomes(passed=3)
    limited = "only some samples are asked, by --vlm-limit=3"
    line = f"{said}DemoChoice, MathVision_MINI: {limited}; own: a table of your own)"
    assert part.outlines.count(line) == 1
    part.stdout.fnmatch_lines(["gates: no gate was set"])
    found = properties(cases["test_score[DemoChoice]"])
    assert found["gates"] == "no gate was set"
    assert found["threshold gate of Overall: reason"] == (
        "DemoChoice: Overall = 0.00. The published threshold min = 99 of [tiny-vlm] in "
        f"{path} does not apply ({limited})."
    )
    # A threshold of the project's own is for whatever is asked.
    path.write_text(PUBLISHED.replace("published = true", ""))
    own = project.ask(server.url, *SELECT, "--vlm-limit=3", *workers)
    own.assert_outcomes(failed=3)
    assert "do not apply" not in own.stdout.str()


def test_a_published_threshold_is_for_one_version_of_the_data(
    project: Project, server: ServerProcess
) -> None:
    """As if the table at hand were a newer version than that of ms-vlmeval."""
    project.write_math(4)
    file = project.data_root / "MathVision_MINI.tsv"
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    known = json.loads(CATALOG.read_text(encoding="utf-8"))
    (entry,) = [it for it in known["datasets"] if it["name"] == "MathVision_MINI"]
    entry["versions"] = [{"md5": md5, "date": "2030-01-02", "origin": "a commit"}]
    changed = project.pytester.path / "catalog.json"
    changed.write_text(json.dumps(known))
    project.pytester.makeconftest(
        "from pathlib import Path\n"
        "from pytest_vlmeval.datasets import catalog\n"
        f"catalog.CATALOG = Path({str(changed)!r})\n"
    )
    server.control(default="Z")
    path = thresholds_of(project)
    path.write_text("[tiny-vlm.MathVision_MINI]\nmin = 99\npublished = true\n")
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(passed=1)
    why = "another version of the data, 2030-01-02 (a commit)"
    assert result.outlines.count(
        f"vlmeval: the published thresholds in {path} do not apply (MathVision_MINI: "
        f"{why})"
    )


def test_a_task_file_of_a_few_samples_is_not_held_against_a_paper(
    project: Project, server: ServerProcess, installed: Path
) -> None:
    """By the thresholds that ship, which are those of the seed's own model."""
    server.control(models=["qwen-vl-chat"], default="B")
    rows = [
        {"index": str(n), "question": f"<{n}>?", "A": "red", "B": "blue"}
        | {"answer": "A", "category": "c", "image": row["image"]}
        for n, row in enumerate(math_rows(8))
    ]
    write_table(project.data_root / "ScienceQA_VAL.tsv", rows)
    model = {"api_base": f"{server.url}/chat/completions"}
    task = swift_task(model=model, data=["ScienceQA_VAL"], limit=6)
    write_task(project.pytester.path / "task.json", task)
    result = project.run("--vlm-config=task.json", "--vlm-allow-modified-data")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "vlmeval: the published thresholds in "
            f"{installed}/benchmarks/thresholds.toml do not apply (ScienceQA_VAL: only "
            "some samples are asked, by --vlm-limit=6)",
            "gates: no gate was set",
        ]
    )


def test_what_is_missing_fails_unless_it_is_little_enough(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "lost", "cut")
    rules = [
        {"contains": "lost <3>", "status": 400, "message": "no"},
        {"contains": "cut <3>", "answer": "red or", "finish_reason": "length"},
    ]
    server.control(default="red", rules=rules)
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(failed=2)
    missing = (
        "lost: 1 of 20 samples has no usable answer and counts as wrong in Overall = "
        "95.00."
    )
    result.stdout.fnmatch_lines(
        [
            f"{missing} The items of these samples say why; the same command asks only "
            "them again.",
            "cut: 1 of 20 answers was cut off at the token limit, and what there is "
            "of its text counts in Overall = 95.00; at most 1 % may be cut off. "
            "Raise --vlm-max-tokens, or allow more with --vlm-max-cut-off.",
        ]
    )
    allowed = ("--vlm-min-answered=95", "--vlm-max-cut-off=5")
    project.ask(server.url, *SELECT, *allowed).assert_outcomes(passed=2)
    said = [str(gate["message"]) for gate in gates(project)]
    assert (
        "lost: 1 of 20 samples has no usable answer and 0 were not decided by the "
        "judge, which is allowed (answered at least 95 %, judged at least 99 %). All "
        "count as wrong."
    ) in said
    result = project.ask(
        server.url, "-k", "test_score and lost", "--vlm-min-answered=96"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"{missing} At least 96 % have to be answered. *"])


def test_what_cannot_be_read_is_not_said_to_be_asked_again(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "torn", samples=10)
    path = project.pytester.path / "torn.tsv"
    head, *rows = path.read_text().splitlines()
    torn = base64.b64encode(image_bytes(7)[:200]).decode()
    rows[7:9] = [row.rpartition("\t")[0] + "\t" + torn for row in rows[7:9]]
    path.write_text("\n".join([head, *rows]) + "\n")
    server.control(
        default="red", rules=[{"contains": "torn <3>", "status": 400, "message": "no"}]
    )
    start = "torn: {} of 10 samples have no usable answer and count as wrong in Overall"
    fix = "fix them in the dataset's file, or allow some with --vlm-min-answered."
    result = project.ask(server.url, *SELECT)
    result.stdout.fnmatch_lines(
        [
            f"{start.format(3)} = 70.00. The items of these samples say why; the same "
            "command asks only them again, but for 2 whose rows or images cannot be "
            f"read: {fix}"
        ]
    )
    server.control(default="red")
    again = project.ask(server.url, *SELECT)
    again.stdout.fnmatch_lines(
        [
            f"{start.format(2)} = 80.00. The items of these samples say why; their "
            f"rows or images cannot be read, whenever they are asked: {fix}"
        ]
    )
    assert len(server.requests()) == 1
    allowed = project.ask(server.url, *SELECT, "--vlm-min-answered=80")
    allowed.assert_outcomes(passed=1)


def test_modified_data_are_refused_or_accepted_and_said(
    project: Project, server: ServerProcess
) -> None:
    """Without the option nothing is asked, and the score's own item fails."""
    project.write_math(4)
    server.control(default="B")
    arguments = ["--vlm-model=tiny-vlm", f"--vlm-api-base={server.url}", *SELECT]
    refused, cases = project.junit(*arguments)
    refused.assert_outcomes(failed=1)
    assert list(cases) == ["test_score[MathVision_MINI]"]
    refused.stdout.fnmatch_lines(
        [
            "MathVision_MINI: * is not the published file: *, or evaluate it as it is "
            "with --vlm-allow-modified-data; its score is then marked as modified."
        ]
    )
    assert not [each for each in server.requests() if "Question" in str(each["text"])]
    accepted = project.run(*arguments, "--vlm-allow-modified-data")
    accepted.assert_outcomes(passed=1)
    said = [str(gate["message"]) for gate in gates(project)]
    assert (
        "MathVision_MINI: all 4 samples are answered and scored. Its file is not the "
        "published one, which --vlm-allow-modified-data accepts: compare the score "
        "only with others of this very file."
    ) in said


VET = """
import pytest
from pytest_vlmeval import Benchmark

class TestVet(Benchmark):
    datasets = ["MMVet"]

class TestBench(Benchmark):
    datasets = ["LLaVABench"]

@pytest.mark.vlm("LLaVABench")
def test_value(vlm_score):
    assert vlm_score.value > 10

@pytest.mark.vlm("LLaVABench")
def test_gates(vlm_score):
    assert vlm_score.gates
"""
WHOLE = ("-k", "")


def test_what_only_a_judge_scores_gates_nothing_without_one(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threshold, a baseline and `vlm_score` fail; what has none of them skips."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    write_table(project.data_root / "MMVet.tsv", GRADED)
    bench = [
        {**row, "caption": "a square", "gpt4_ans": "red", "question": f"On <{n}>?"}
        for n, row in enumerate(GRADED)
    ]
    write_table(project.data_root / "LLaVABench.tsv", bench)
    project.pytester.makepyfile(test_vet=VET)
    baseline = project.pytester.path / "__baselines__" / "tiny-vlm" / "MMVet.json"
    baseline.parent.mkdir(parents=True)
    baseline.write_text("{}")
    path = thresholds_of(project)
    path.write_text("[tiny-vlm.MMVet]\nmin = 60\n")
    server.control(default="red")
    result = project.ask(server.url, "-rs")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # Samples pass, being answered; LLaVABench has no threshold and no baseline.
    result.assert_outcomes(passed=8, skipped=2, failed=4)
    why = (
        "is scored by a judge only, and there is none. Its answers are kept: run the "
        "same command with --vlm-judge=NAME --vlm-judge-api-base=URL to score them."
    )
    result.stdout.fnmatch_lines_random(
        [
            "MMVet has a threshold and no score to hold against it (min = 60 of "
            f"[[]tiny-vlm[]] in {path}). MMVet {why}",
            f"MMVet is not compared with its baseline {baseline}. MMVet {why}",
            f"LLaVABench {why}",
            f"SKIPPED * LLaVABench {why}",
            "gates: 2 failed",
        ]
    )
    found = newest_gates(project)
    assert found["MMVet", "threshold"]["expected"] == 60
    assert found["MMVet", "baseline"]["fails"]
    # Part of it, which no threshold is about.
    partial = project.ask(server.url, "-k", "test_sample")
    assert partial.ret == pytest.ExitCode.OK


HELD = """
import pytest
from pytest_vlmeval import Benchmark

@pytest.mark.skip(reason="not now")
class TestSkipped(Benchmark):
    datasets = ["skipped.tsv"]

class TestOwn(Benchmark):
    datasets = ["own.tsv"]

    def test_score(self, vlm_score):
        assert vlm_score.value > 10

class TestHeld(Benchmark):
    datasets = ["held.tsv"]

    def test_score(self, vlm_score):
        vlm_score.check()

@pytest.mark.vlm("samples.tsv")
def test_each(vlm_sample):
    vlm_sample.check()

@pytest.mark.vlm("free.tsv")
def test_free(vlm_sample):
    vlm_sample.check()
"""
NAMES = ("skipped", "own", "held", "samples", "free")


def unheld(name: str, path: Path) -> str:
    return (
        f"gates: {name} failed: no test held its score against its threshold (min = "
        f"60 of [[]tiny-vlm[]] in {path}). Its test_score was skipped or is not there: "
        "run one, or a test that calls vlm_score.check(), or take the threshold out."
    )


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "workers"])
def test_a_threshold_that_no_test_held_fails_the_session(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    write_own(project, *NAMES, samples=3)
    project.pytester.makepyfile(test_own=HELD)
    answers(server)
    path = thresholds_of(project)
    path.write_text("".join(f"[tiny-vlm.'{n}.tsv']\nmin = 60\n" for n in NAMES[:4]))
    result = project.ask(server.url, *WHOLE, *workers)
    assert "failed" not in result.parseoutcomes()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = [line for line in result.outlines if "no test held" in line]
    assert len(lines) == 3
    result.stdout.fnmatch_lines_random(
        [unheld(name, path) for name in ("skipped", "own", "samples")]
    )


PARTS = [
    ["-k", "test_each or test_free"],
    ["test_own.py"],
    ["-k", "", "--vlm-mode=infer"],
    ["-k", "", "--setup-plan"],
]


@pytest.mark.parametrize(
    ("arguments", "narrowed"),
    [
        ([], False),
        (["."], False),
        (["sub", "test_a.py"], False),
        (["test_a.py", "sub/test_b.py"], True),
        (["other"], True),
        (["sub/test_b.py::test_b"], True),
        (["-m", "vlm"], True),
        (["-k", "b"], True),
        (["--lf"], True),
        (["--deselect=sub/test_b.py::test_b"], True),
        (["--ignore=sub/test_c.py"], True),
    ],
)
def test_which_command_lines_select_all_tests_of_a_folder(
    pytester: pytest.Pytester, arguments: list[str], narrowed: bool
) -> None:
    for name in ("sub", "other"):
        pytester.mkdir(name)
    config = pytester.parseconfig(*arguments)
    assert is_narrowed(config, pytester.path / "sub") == narrowed


def test_part_of_the_tests_is_not_held_to_all_thresholds(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, *NAMES, samples=3)
    held = HELD.replace('@pytest.mark.skip(reason="not now")\n', "")
    project.pytester.makepyfile(test_own=held)
    answers(server)
    thresholds_of(project).write_text(
        "".join(f"[tiny-vlm.'{n}.tsv']\nmin = 60\n" for n in NAMES[:4])
    )
    for part in PARTS:
        result = project.ask(server.url, *part)
        assert result.ret == pytest.ExitCode.OK, part
        assert "no test held" not in result.stdout.str(), part
        said = "vlmeval: --vlm-mode=infer only asks: there are no scores, and no "
        assert (said in result.stdout.str()) == ("--vlm-mode=infer" in part)


OTHERS = """
[other.'one.tsv']
min = 60
"""


@pytest.mark.parametrize(
    ("more", "fails"),
    [("", True), ("[tiny-vlm]", False), ('["*"]', False)],
)
def test_thresholds_for_other_models_alone_fail(
    project: Project, server: ServerProcess, more: str, fails: bool
) -> None:
    write_own(project, "one", "two", samples=3)
    answers(server)
    path = thresholds_of(project)
    path.write_text(OTHERS + more)
    result = project.ask(server.url, "-k", "test_score")
    if not fails:
        result.assert_outcomes(passed=2)
        return
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"one: Overall = 100.00 is held against nothing: {path} has thresholds of "
            "it for other, and none for tiny-vlm. Correct that name, or add "
            '[[]tiny-vlm."one.tsv"[]] with a min, or the empty table [[]tiny-vlm[]] if '
            "it is to have none.",
            "gates: no gate was set; 1 failed",
        ]
    )
    # As the message says: a name that fits, a threshold, an empty table.
    path.write_text(OTHERS.replace("other", "'tiny-*'"))
    project.ask(server.url, "-k", "test_score").assert_outcomes(passed=2)
    path.write_text(OTHERS + '[tiny-vlm."one.tsv"]\nmin = 60\n')
    project.ask(server.url, "-k", "test_score").assert_outcomes(passed=2)


def write_thresholds(folder: Path, text: str) -> Callable[[str, str], str]:
    (folder / "thresholds.toml").write_text(text)
    return load_thresholds(None, [folder]).explain_missed


def test_thresholds_for_other_models_are_missed_by_each_dataset(
    tmp_path: Path,
) -> None:
    """Whatever else in the file fits the model, as the file says no more of it."""
    several = (
        "[qwen-vl-chat.MMStar]\nmin = 60\n[qwen_vl_chat.POPE]\nmin = 60\n[b.MME]\n"
        "min = 1\n['qwen-vl-*'.AI2D]\nmin = 1\n"
    )
    explain = write_thresholds(tmp_path, several)
    missed = f"{tmp_path / 'thresholds.toml'} has thresholds of it for "
    assert explain("qwen-vl-chat", "MMStar") == ""
    assert explain("qwen-vl-chat", "AI2D") == ""
    assert explain("qwen-vl-chat", "ScienceQA_VAL") == ""
    assert explain("qwen-vl-chat", "MME") == (
        f"{missed}b, and none for qwen-vl-chat. Correct that name, or add "
        "[qwen-vl-chat.MME] with a min, or the empty table [qwen-vl-chat.MME] if it is "
        "to have none."
    )
    assert explain("qwen-vl-chat", "POPE") == (
        f"{missed}qwen_vl_chat, and none for qwen-vl-chat. Did you mean qwen_vl_chat? "
        "Correct that name, or add [qwen-vl-chat.POPE] with a min, or the empty table "
        "[qwen-vl-chat.POPE] if it is to have none."
    )
    # As the messages say.
    own = "[qwen-vl-chat.POPE]\n[qwen-vl-chat.MME]\nmin = 2"
    explain = write_thresholds(tmp_path, several + own)
    assert explain("qwen-vl-chat", "MME") == explain("qwen-vl-chat", "POPE") == ""
    # An empty table of a pattern says nothing of a name in another spelling.
    explain = write_thresholds(tmp_path, several + "['*']")
    assert explain("qwen-vl-chat", "MME") == ""
    assert "Did you mean qwen_vl_chat?" in explain("qwen-vl-chat", "POPE")
    assert "Did you mean qwen_vl_chat?" in explain("Qwen/Qwen-VL-Chat", "POPE")
    # One of the model does, as it is the name at hand.
    explain = write_thresholds(tmp_path, "[qwen_vl_chat.POPE]\nmin = 1\n[qwen-vl-chat]")
    assert explain("qwen-vl-chat", "POPE") == ""


def test_an_empty_table_of_a_dataset_asks_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text('["*".MMStar]\nmin = 60\n[m.MMStar]\n[m.MME]\nmin = 9\n')
    thresholds = load_thresholds(None, [tmp_path])
    assert not thresholds.of("m", "MMStar")
    assert thresholds.explain_missed("m", "MMStar") == ""
    assert thresholds.of("n", "MMStar")


def test_an_empty_table_of_all_models_hides_no_misspelt_model(tmp_path: Path) -> None:
    (tmp_path / "thresholds.toml").write_text(
        '["*"]\n[qwen-vl-chat.MMStar]\nmin = 60\n'
    )
    thresholds = load_thresholds(None, [tmp_path])
    thresholds.check("llava", ["MMStar"])
    with pytest.raises(VlmEvalError, match="no threshold is for the model 'Qwen-VL"):
        thresholds.check("Qwen-VL-Chat", ["MMStar"])
