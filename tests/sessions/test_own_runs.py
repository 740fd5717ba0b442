"""Tables of one's own, and any other name, from --vlm-data to their scores."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.sandbox.environment import HUB, VIDEO, SandboxEnvironment
from tests.support.failed_sessions import error_of, message_of
from tests.support.hub_server import HubServer
from tests.support.hub_sets import REPOSITORIES
from tests.support.invented_tables import invented_table
from tests.support.run_fixtures import (
    CACHE_DIR,
    Project,
    endpoint,
    environment_with,
    image_bytes,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess
from tests.support.video_layouts import repositories

NAMED = Path(__file__).parents[2] / "benchmarks" / "test_named.py"
OPTIONS = {"A": "red", "B": "None", "C": ""}
CLASS = """
from pytest_vlmeval import Benchmark

class TestMine(Benchmark):
    datasets = ["tables/choice.tsv"]
"""


def cell(seed: int) -> str:
    """Return an image as a table has it."""
    return base64.b64encode(image_bytes(seed)).decode()


@pytest.fixture
def own(project: Project, server: ServerProcess) -> Project:
    """Give a project with tables of every kind and the benchmark for any of them."""
    tables = project.pytester.mkdir("tables")
    shutil.copy(NAMED, project.pytester.path)
    two = f"['{cell(1)}', '{cell(2)}']"
    rows: dict[str, list[dict[str, str]]] = {
        "choice": [
            {"index": f"q{n}", "question": f"<c{n}>?", "answer": "AB"[n], **OPTIONS}
            | {"image": two if n else cell(0), "category": "xy"[n]}
            for n in (0, 1)
        ],
        # Texts that ms-vlmeval's way of reading turns into others.
        "open": [
            {"question": f"<o{n}>?", "answer": answer, "image": cell(n)}
            for n, answer in enumerate(["007", "None", "['red', 'dark red']"])
        ],
        # A name for which ms-vlmeval has rules that this table would not survive.
        "MME_Hallusion": [
            {"question": f"<y{n}>?", "answer": answer, "image_path": f"{n}.png"}
            for n, answer in enumerate(["yes", "No"])
        ],
        "words": [{"question": "<w0>?", "answer": "blue"}],
        "letters": [{"question": "<l0>?", "answer": "B", **OPTIONS}],
        "circular": [
            {"index": str(n), "question": f"<r{n}>?", "answer": answer, **OPTIONS}
            | {"image": cell(1)}
            for n, answer in ((7, "A"), (1_000_007, "B"))
        ],
        "secret": [{"question": "<s0>?", "answer": "", "image": cell(1)}],
    }
    for name, each in rows.items():
        write_table(tables / f"{name}.tsv", each)
    for n in (0, 1):
        (tables / f"{n}.png").write_bytes(image_bytes(n))
    answers = {"<c1>": "A", "<o0>": "007", "<o1>": "None", "<o2>": "Dark red."}
    answers |= {"<y0>": "Yes, it is.", "<y1>": "No.", "<w0>": "Blue", "<l0>": "None"}
    server.control(answers=answers, default="A")
    return project


def test_tables_of_every_kind_are_asked_and_scored(
    own: Project, server: ServerProcess
) -> None:
    names = "choice open MME_Hallusion words letters circular".split()
    data = ",".join(f"tables/{name}.tsv" for name in names)
    result, cases = own.junit(*endpoint(server.url), f"--vlm-data={data}")
    outcomes = {"passed": 14, "xfailed": 3}
    assert result.parseoutcomes() | outcomes == result.parseoutcomes()
    scores = {
        name: float(properties(cases[f"test_score[{name}]"])["score"]) for name in names
    }
    assert scores == {
        "choice": 50,
        "open": 100,
        "MME_Hallusion": 100,
        "words": 100,
        "letters": 100,
        "circular": 0,  # one of two rotations is wrong
    }
    assert properties(cases["test_sample[choice-q0]"])["category"] == "x"
    assert properties(cases["test_sample[open-1]"])["reference"] == "007"
    asked = {str(each["text"]): each["images"] for each in server.requests()}
    images = {text[:8]: len(found) for text, found in asked.items() if found}  # type: ignore[arg-type]
    assert len(images) == len({**images})
    (two,) = [found for text, found in asked.items() if "<c1>" in text]
    assert isinstance(two, list)
    assert len(two) == 2
    (options,) = [text for text in asked if "<l0>" in text]
    assert "Options:\nA. red\nB. None\n" in options
    # Without references there is no score, so it is asked with --vlm-mode=infer alone.
    infer = ["--vlm-data=tables/secret.tsv", "--vlm-mode=infer"]
    assert own.ask(server.url, *infer).ret == 0
    (secret,) = [each for each in server.requests() if "<s0>" in str(each["text"])]
    assert secret["images"]


def test_a_class_names_a_table_beside_it(own: Project, server: ServerProcess) -> None:
    deep = own.pytester.mkdir("deep")
    shutil.move(own.pytester.path / "tables", deep / "tables")
    (deep / "test_mine.py").write_text(CLASS)
    result = own.ask(server.url, "-n2", "--vlm-sample=1", "deep")
    result.assert_outcomes(passed=2)
    result = own.ask(server.url, "--vlm-data=choice", "-k", "choice-q1", "-rx")
    assert result.parseoutcomes()["xfailed"] == 1
    result.stdout.fnmatch_lines(
        ["XFAIL deep/test_mine.py::TestMine::test_sample[[]choice-q1[]] - *"]
    )


def test_a_changed_table_is_asked_again(own: Project, server: ServerProcess) -> None:
    arguments = ["--vlm-data=tables/words.tsv"]
    assert own.ask(server.url, *arguments).ret == 0
    asked = len(server.requests())
    assert own.ask(server.url, *arguments).ret == 0
    assert len(server.requests()) == asked
    row = {"question": "<w0> now?", "answer": "blue"}
    write_table(own.pytester.path / "tables" / "words.tsv", [row])
    assert own.ask(server.url, *arguments).ret == 0
    assert len(server.requests()) == asked + 1


def test_faults_of_a_table_are_one_failed_item(
    own: Project, server: ServerProcess
) -> None:
    path = own.pytester.path / "tables" / "open.tsv"
    write_table(path, [{"qestion": "?", "answer": "x", "image": cell(1)}])
    row = {"index": "4", "question": "?", "answer": "x"}
    twice = own.pytester.path / "tables" / "twice.tsv"
    write_table(twice, [row, row])
    data = f"--vlm-data={path},{twice},tables/words.tsv"
    result = own.ask(server.url, data)
    result.assert_outcomes(passed=2, failed=2, deselected=3)
    assert message_of(result, f"{path} has no column question; is it 'qestion'? ")
    assert message_of(result, f"{twice} cannot be used (row 1 is the one below the ")
    assert message_of(result, "  row 2: its index '4' is that of row 1 too; each row ")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            "tables/chioce.tsv",
            "chioce: there is no file {}/tables/chioce.tsv. Name a table that exists "
            "(.tsv, .csv, .jsonl, .json, each also with .gz, or .parquet), or a folder "
            "with one. Did you mean choice.tsv?",
        ),
        ("MMStarr", "Unknown dataset: 'MMStarr'. Did you mean MMStar or "),
        (
            "tables/words.tsv,deep/words.tsv",
            "{0}/tables/words.tsv and {0}/deep/words.tsv would both be the dataset "
            "words. Rename one of them, or evaluate them in two runs.",
        ),
    ],
)
def test_names_that_cannot_be_had_are_a_usage_error(
    own: Project, server: ServerProcess, data: str, text: str
) -> None:
    folder = own.pytester.path
    deep = own.pytester.mkdir("deep")
    shutil.copy(folder / "tables" / "words.tsv", deep)
    result = own.ask(server.url, f"--vlm-data={data}")
    assert error_of(result).startswith(text.format(folder))
    assert not server.requests()


def test_a_table_with_the_name_of_a_published_dataset(
    own: Project, server: ServerProcess
) -> None:
    path = own.pytester.path / "POPE.tsv"
    write_table(path, [{"question": "?", "answer": "yes", "image": cell(1)}])
    result = own.ask(server.url, "--vlm-data=POPE.tsv")
    assert message_of(result, f"{path}: ") == (
        f"{path}: POPE is the name of a dataset that ms-vlmeval knows. If it is that "
        f"one, put the file into {own.data_root} and name it without its folder and "
        "suffix; otherwise rename the file."
    )


def test_any_name_of_the_catalog_and_the_members_of_a_collection(
    own: Project, server: ServerProcess
) -> None:
    for name in ("MMMB_en", "MMMB_ru"):
        row = {"index": "3", "question": f"{name}?", "answer": "A", **OPTIONS}
        write_table(own.data_root / f"{name}.tsv", [{**row, "image": cell(1)}])
    own.pytester.makepyfile(test_math=CLASS.replace("tables/choice.tsv", "MMMB_ru"))
    arguments = ["--vlm-data=MMMB", "--vlm-offline", "-rf"]
    result = own.ask(server.url, *arguments)
    # The other four have no file.
    assert result.parseoutcomes() == {"passed": 4, "failed": 4, "deselected": 8}
    result.stdout.fnmatch_lines_random(
        [
            "FAILED test_named.py::TestNamed::test_sample[[]MMMB_ar[]] - *",
            "FAILED test_named.py::TestNamed::test_sample[[]MMMB_tr[]] - *",
        ]
    )
    result = own.ask(server.url, "--vlm-data=MMMB_en,MMMB_ru", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        [
            "test_math.py::TestMine::test_score[[]MMMB_ru[]] PASSED*",
            "test_named.py::TestNamed::test_score[[]MMMB_en[]] PASSED*",
        ]
    )


def test_what_is_to_be_downloaded_counts_names_of_the_catalog(
    own: Project, server: ServerProcess
) -> None:
    mirror = own.pytester.mkdir("mirror")
    (mirror / "mmmb_en.tsv").write_bytes(b"x" * 2_000_000)
    result = own.ask(
        server.url,
        "--vlm-data=MMMB_en,tables/words.tsv",
        f"--vlm-data-mirror={mirror}",
        "--vlm-download-max-gb=0.001",
    )
    text = error_of(result)
    assert text.startswith("The selected datasets have 2 MB to download, more than ")
    assert "words" not in text


def test_what_cannot_be_scored_is_answered_and_says_so(
    own: Project, server: ServerProcess
) -> None:
    row = {"index": "3", "question": "Which?", "answer": "A", "A": "1", "B": "2"}
    write_table(own.data_root / "MME_CoT_TEST.tsv", [{**row, "image": cell(1)}])
    asking = ["--vlm-data=MME_CoT_TEST", "--vlm-mode=infer"]
    result = own.ask(server.url, *asking, "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == 0
    why = (
        "MME_CoT_TEST cannot be scored: ms-vlmeval's class has no scoring of its own "
        "and gives a number that means nothing (dataset/image_vqa.py:1883)"
    )
    submissions = own.pytester.path / ".vlmeval" / "submissions"
    file = submissions / "tiny-vlm" / "MME_CoT_TEST.tsv"
    result.stdout.fnmatch_lines_random(
        [
            f"SKIPPED * {why}; its answers are in {file} (ms-vlmeval's table of "
            "predictions)",
        ]
    )
    header, cells = file.read_text().splitlines()
    assert dict(zip(header.split("\t"), cells.split("\t"), strict=True)) == {
        **row,
        "prediction": "A",
    }


def test_without_names_there_is_nothing_to_run(
    own: Project, server: ServerProcess
) -> None:
    result = own.ask(server.url)
    result.assert_outcomes(deselected=3)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


# An image on a hub, a text in a table, a video on a hub: an environment for each.
NAMES = ("SCAM", "XSTest", "Video-TT")

# There is nothing that a baseline is of.
OUTCOMES = {"passed": 5, "skipped": 3, "deselected": 1}


@pytest.fixture
def others(
    project: Project,
    hub_environment: HubServer,
    sandbox_environment: SandboxEnvironment,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Give a project whose environments are found by what datasets need."""
    hub_environment.repositories |= {
        "BLISS-e-V/SCAM": REPOSITORIES["BLISS-e-V/SCAM"],
        "lmms-lab/video-tt": repositories()["lmms-lab/video-tt"],
    }
    for addons in (HUB, VIDEO):
        environment_with(addons)
    cache = project.pytester.mkdir("cache")
    (cache / "sandbox").symlink_to(CACHE_DIR / "sandbox")
    monkeypatch.setenv("VLM_CACHE_DIR", str(cache))
    monkeypatch.delenv("VLM_SANDBOX_PYTHON")
    monkeypatch.setenv("VLMEVALKIT_USE_MODELSCOPE", "0")
    info = load_catalog(sandbox_environment, cache)["XSTest"]
    invented_table(info, project.data_root)
    shutil.copy(NAMED, project.pytester.path)
    return project


@pytest.mark.addons
def test_they_are_asked_once_and_not_scored(
    others: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    arguments = [*endpoint(server.url), f"--vlm-data={','.join(NAMES)}", "-rs"]
    arguments.append("--vlm-mode=infer")
    result = others.run(*arguments, timeout_s=300)
    # Two images, two texts, one video; and a score item for each dataset.
    assert result.parseoutcomes() == OUTCOMES
    assert result.ret == pytest.ExitCode.OK
    output = result.stdout.str()
    assert (
        "Video-TT cannot be scored: the scoring of ms-vlmeval's VideoTT cannot be used "
        "here yet"
    ) in output
    result.stdout.fnmatch_lines(
        [
            "SCAM * 2 * 2 * - *no score: only asked so far*",
            "XSTest * 2 * 2 * - *no score: only asked so far*",
            "Video-TT * 1 * 1 * - *no score: the scoring of ms-vlmeval's *",
        ]
    )
    orders = [each["order"] for each in server.requests()]
    assert orders.count(["text"]) == 2
    assert orders.count(["image_url", "text"]) == 2
    # Eight frames, then two texts.
    assert orders.count(["image_url"] * 8 + ["text"] * 2) == 1
    # A second session asks neither the hub nor the model.
    hub_environment.requests.clear()
    again = others.run(*arguments, timeout_s=300)
    assert again.ret == pytest.ExitCode.OK
    assert again.parseoutcomes() == OUTCOMES
    assert len(server.requests()) == 5
    assert not hub_environment.requests
