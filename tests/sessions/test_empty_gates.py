"""Gates that had nothing to gate: thresholds, baselines and tests without a score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.thresholds import load_thresholds
from pytest_vlmeval.suite.selection import is_narrowed
from tests.support.gated_tables import answers, newest_gates, thresholds_of, write_own
from tests.support.judged_sessions import GRADED
from tests.support.run_fixtures import Project, write_table
from tests.support.server_fixtures import ServerProcess

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
