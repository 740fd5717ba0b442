"""Datasets that installed packages add: listed, asked, scored, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval import evaluate
from pytest_vlmeval.errors import VlmEvalError
from tests.support.failed_sessions import error_of, message_of
from tests.support.run_fixtures import Project, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

NAMED = Path(__file__).parents[2] / "benchmarks" / "test_named.py"
COUNT = """
from pytest_vlmeval import Dataset

def rows():
    return [
        {"question": f"How many <{n}>?", "answer": 10 * n, "tolerance": 5}
        for n in range(1, 5)
    ]

def score(sample, answer):
    off = abs(int(answer.text) - int(sample.reference))
    return off <= int(sample.row["tolerance"])

count = Dataset(rows=rows, prompt="question", score=score)
"""
# Right, near enough, too far off, and right again.
ANSWERS = {"<1>": "10", "<2>": "18", "<3>": "5", "<4>": "40"}

Install = Callable[..., Path]


@pytest.fixture
def install(
    project: Project,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Install:
    """Give what puts a package with entry points where Python finds it."""
    shutil.copy(NAMED, project.pytester.path)
    server.control(answers=ANSWERS)
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))

    def install(package: str, code: str, **entries: str) -> Path:
        module = package.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n"
        )
        lines = [f"{name} = {value}" for name, value in entries.items()]
        text = "\n".join(["[vlmeval.datasets]", *lines])
        (info / "entry_points.txt").write_text(text + "\n")
        return site

    return install


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "n2"])
def test_a_name_of_a_package_is_a_dataset(
    project: Project, server: ServerProcess, install: Install, workers: list[str]
) -> None:
    install("vlm-count", COUNT, Counted="vlm_count:count")
    result = project.ask(server.url, "--vlm-data=Counted", *workers)
    result.assert_outcomes(passed=4, xfailed=1)
    result.stdout.fnmatch_lines(["Counted * Overall 75.00 of 100 * own scoring"])
    texts = {str(each["text"]) for each in server.requests()}
    # The question alone, without what ms-vlmeval adds to open ones.
    assert texts >= {f"How many <{n}>?" for n in range(1, 5)}


def test_rows_of_images_and_ms_vlmeval_s_scoring(
    project: Project, server: ServerProcess, install: Install
) -> None:
    """Images lie beside the module; without a score it is scored as a table is."""
    code = """
    from pathlib import Path
    from pytest_vlmeval import Dataset

    file = Path(__file__).with_name("colours-2.tsv")
    colours = Dataset(rows=file, columns={"question": "what"})
    listed = Dataset(
        rows=lambda: [
            {"question": "Which <1>?", "answer": "10", "image_path": "1.png"},
            {"question": "Which <2>?", "answer": "18", "image_path": ""},
        ],
        prompt="question",
        score=lambda sample, answer: answer.text == sample.reference,
    )
    """
    names = {"Colours": "vlm_colours:colours", "Listed": "vlm_colours:listed"}
    site = install("vlm-colours", code, **names)
    (site / "1.png").write_bytes(image_bytes(1))
    row = {"what": "Which <1>?", "answer": "10", "image_path": "1.png"}
    write_table(site / "colours-2.tsv", [row])
    result = project.ask(server.url, "--vlm-data=Colours,Listed")
    result.assert_outcomes(passed=5)
    asked = [each for each in server.requests() if "Which" in str(each["text"])]
    assert [bool(each["images"]) for each in asked].count(True) == 2
    (with_hint,) = [e for e in asked if "single word" in str(e["text"])]
    assert with_hint["images"]


def test_packages_are_listed_and_what_fails_is_named(
    project: Project, server: ServerProcess, install: Install
) -> None:
    site = install(
        "vlm-count",
        COUNT,
        Counted="vlm_count:count",
        MMStar="vlm_count:count",
        Gone="vlm_gone:count",
    )
    listed = project.run("--vlm-list=counted,gone,vlm-count").outlines
    assert listed == []
    lines = project.run("--vlm-list").outlines
    start = lines.index("Added by installed packages:")
    assert lines[start + 1 :] == [
        "  Counted  vlm-count 1.2",
        "  Gone     Gone cannot be loaded from the package vlm-count 1.2 (entry point "
        "'vlm_gone:count' of vlmeval.datasets): ModuleNotFoundError: No module named "
        "'vlm_gone'. Install another version of vlm-count, with all that it needs, or "
        "uninstall it.",
        "  MMStar   MMStar is the name of datasets of ms-vlmeval and the package "
        "vlm-count 1.2. Uninstall vlm-count, or have its entry point of "
        "vlmeval.datasets renamed.",
    ]
    found = json.loads(project.run("--vlm-list=json").stdout.str())
    by_name = {each["name"]: each for each in found if "package" in str(each["source"])}
    assert by_name["Counted"]["source"] == "package vlm-count 1.2"
    assert by_name["Counted"]["scored"] == "yes"
    assert "cannot be loaded" in by_name["Gone"]["not_scored_because"]
    # Others are not touched by it.
    project.ask(server.url, "--vlm-data=Counted").assert_outcomes(passed=4, xfailed=1)
    assert error_of(project.ask(server.url, "--vlm-data=Gone")).startswith(
        "Gone cannot be loaded from the package vlm-count 1.2 "
    )
    assert error_of(project.ask(server.url, "--vlm-data=MMStar")).startswith(
        "MMStar is the name of datasets of ms-vlmeval and the package vlm-count 1.2."
    )
    (site / "vlm_gone.py").write_text("import sys\n\nsys.exit('no licence')\n")
    gone = error_of(project.ask(server.url, "--vlm-data=Gone"))
    assert f"SystemExit: no licence ({site}/vlm_gone.py:3). Install" in gone


def test_two_packages_of_one_name(
    project: Project, server: ServerProcess, install: Install
) -> None:
    install("vlm-count", COUNT, Counted="vlm_count:count")
    install("vlm-more", COUNT, Counted="vlm_more:count")
    assert error_of(project.ask(server.url, "--vlm-data=Counted")) == (
        "Counted is the name of datasets of the package vlm-count 1.2 and the package "
        "vlm-more 1.2. Uninstall vlm-more, or have its entry point of vlmeval.datasets "
        "renamed."
    )


def test_a_table_of_the_name_of_a_package_s_dataset(
    project: Project, server: ServerProcess, install: Install
) -> None:
    install("vlm-count", COUNT, Counted="vlm_count:count")
    path = project.pytester.path / "Counted.tsv"
    write_table(path, [{"question": "?", "answer": "x"}])
    result = project.ask(server.url, "--vlm-data=Counted.tsv")
    assert message_of(result, f"{path}: ") == (
        f"{path}: Counted is the name of a dataset that the package vlm-count 1.2 adds."
        " Rename the file."
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("it = 5", "is a int. It has to be a pytest_vlmeval.Dataset."),
        (
            "it = Dataset(rows='my.tsv')",
            "has rows='my.tsv'. Give the absolute path of its table, as "
            "Path(__file__).with_name('NAME.tsv'), or a hub's hf:OWNER/NAME.",
        ),
        (
            "it = Dataset(rows=list, columns={'tolerance': 't', 'question': 'q'})",
            "has columns={'tolerance': 't', 'question': 'q'}. It maps index, messages, "
            "question, answer, options, image, image_path, category, split, hint, "
            "g_index, answer_from_0, answer_from_1 and A, B, ... for options to names "
            "of columns, each to one: {'question': 'prompt'}.",
        ),
        (
            "it = Dataset(rows=list, prompt='none')",
            "has prompt='none'. It takes 'ms-vlmeval' or 'question'.",
        ),
        (
            "it = Dataset(rows=list, prompt='question')",
            "has prompt='question' and no score: ms-vlmeval scores what it asks. Add "
            "score, or leave prompt out.",
        ),
    ],
)
def test_what_is_no_dataset(
    project: Project, server: ServerProcess, install: Install, code: str, text: str
) -> None:
    install("vlm-it", f"from pytest_vlmeval import Dataset\n{code}\n", It="vlm_it:it")
    result = project.ask(server.url, "--vlm-data=It")
    found = error_of(result) if result.ret == 4 else message_of(result, "It of the ")
    assert found == (
        "It of the package vlm-it 1.2 (entry point 'vlm_it:it' of vlmeval.datasets) "
        f"{text}"
    )


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            "return []",
            "It of the package vlm-it 1.2 gave nothing as its rows. It has to give a "
            "path, a DataFrame, or a list of rows, each a dict by column, at least "
            "one.",
        ),
        ("return 5", "It of the package vlm-it 1.2 gave int as its rows. It has to "),
        (
            "raise OSError('no network')",
            "It: the rows of the package vlm-it 1.2 cannot be had: OSError: no network "
            "({}/vlm_it.py:4).",
        ),
    ],
)
def test_rows_that_cannot_be_had(
    project: Project, server: ServerProcess, install: Install, rows: str, text: str
) -> None:
    code = f"""
    from pytest_vlmeval import Dataset
    def rows():
        {rows}
    it = Dataset(rows=rows)
    """
    site = install("vlm-it", code, It="vlm_it:it")
    result = project.ask(server.url, "--vlm-data=It,DemoOpen", "--vlm-limit=1")
    text = text.format(site)
    found = error_of(result) if result.ret == 4 else message_of(result, "It")
    assert found.startswith(text)


def test_a_score_of_a_package_that_cannot_be_called(
    project: Project, server: ServerProcess, install: Install
) -> None:
    install(
        "vlm-count", COUNT.replace("(sample, answer)", "(answer)"), It="vlm_count:count"
    )
    assert error_of(project.ask(server.url, "--vlm-data=It")).startswith("It.score (")
    assert not server.requests()


def test_evaluate_takes_the_name_too(
    project: Project,
    server: ServerProcess,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = install("vlm-counted", COUNT, Counted="vlm_counted:count")
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(project.pytester.path)
    results = evaluate("tiny-vlm", "Counted", api_base=server.url)
    assert results.score("Counted").value == 75
    with pytest.raises(VlmEvalError, match=r"Did you mean Counted or "):
        evaluate("tiny-vlm", "Countedd", api_base=server.url)
