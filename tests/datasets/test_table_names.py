"""Names of tables: blanks, commas, letters of any script, and files in LMUData."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import find_table, unknown_dataset
from pytest_vlmeval.datasets.own import check_exists, read_facts
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.option import (
    can_be_name,
    dataset_name,
    list_datasets,
    parse_datasets,
)
from pytest_vlmeval.settings.sources import call_sources
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project, endpoint, write_table
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import read_task, swift_task, write_task

ROOT = Path(__file__).parents[2]
ROW = {"index": "1", "question": "2+2?", "answer": "A", "A": "4", "B": "5"}
NAMES = ["我的", "ok", "a,b", "MyBench", "pack ed", "naïve ünï"]


@pytest.fixture
def named(project: Project, server: ServerProcess) -> Project:
    """Give a project with tables of such names, two of them in LMUData."""
    folder = project.pytester.path
    shutil.copy(ROOT / "benchmarks" / "test_named.py", folder)
    for path in ("我的.tsv", "My Data/ok.tsv", "a,b.tsv", "My Data/naïve ünï.tsv"):
        write_table(folder / path, [ROW])
    write_table(project.data_root / "MyBench.tsv", [ROW])
    write_table(folder / "plain.tsv", [ROW])
    packed = gzip.compress((folder / "plain.tsv").read_bytes())
    (project.data_root / "pack ed.tsv.gz").write_bytes(packed)
    server.control(default="A")
    return project


@pytest.mark.slow
def test_every_name_is_shown_selected_and_run_again(
    named: Project, server: ServerProcess
) -> None:
    data = [
        "--vlm-data=我的.tsv",
        "--vlm-data=My Data/ok.tsv",
        "--vlm-data=a,b.tsv",
        "--vlm-data=MyBench,'pack ed','My Data/naïve ünï.tsv'",
    ]
    server.control(rules=[{"contains": "2+2", "answer": "B"}])
    data.append("--vlm-wrong=fail")
    result, cases = named.junit(*endpoint(server.url), *data, "-v")
    assert set(cases) == {
        *(f"test_sample[{name}-1]" for name in NAMES),
        *(f"test_score[{name}]" for name in NAMES),
    }
    for name in NAMES:
        assert f"test_named.py::TestNamed::test_sample[{name}-1] " in str(result.stdout)
    result.assert_outcomes(passed=6, failed=6, deselected=1)
    server.control(rules=[])
    # What failed, by --lf; there the store has the answers.
    again = named.ask(server.url, *data, "--lf")
    assert again.parseoutcomes()["failed"] == 6
    assert "passed" not in again.parseoutcomes()
    # By their ids, in workers.
    ids = [f"test_named.py::TestNamed::test_sample[{name}-1]" for name in NAMES]
    result = named.ask(server.url, *data, "-n2", "-rf", *ids)
    result.assert_outcomes(failed=6)
    for each in ids:
        assert f"FAILED {each} - " in str(result.stdout)


@pytest.mark.slow
def test_names_of_a_task_file_the_ini_file_and_the_environment(
    named: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = named.pytester.path
    served = {"api_base": f"{server.url}/chat/completions", "type": "tiny-vlm"}
    task = swift_task(model=served, data=["MyBench", "a,b.tsv", "My Data/ok.tsv"])
    write_task(folder / "task.yaml", task)
    common = ["--vlm-allow-missing-baseline", "test_named.py"]
    named.run("--vlm-config=task.yaml", *common).assert_outcomes(passed=6, deselected=1)
    (folder / "pytest.ini").write_text(
        "[pytest]\nvlm_data = MyBench\n    'My Data/ok.tsv' \"a,b.tsv\"\n",
        encoding="utf-8",
    )
    named.ask(server.url, *common).assert_outcomes(passed=6, deselected=1)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    monkeypatch.setenv("VLM_DATA", "My Data/ok.tsv")
    named.ask(server.url, *common).assert_outcomes(passed=2, deselected=1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("MMStar,POPE", ["MMStar", "POPE"]),
        ("MMStar POPE\n MME,,", ["MMStar", "POPE", "MME"]),
        ("'My Data/ok.tsv',POPE", ["My Data/ok.tsv", "POPE"]),
        ('"a,b.tsv" c.tsv', ["a,b.tsv", "c.tsv"]),
        ("My\\ Data/ok.tsv", ["My Data/ok.tsv"]),
        ("我的.tsv", ["我的.tsv"]),
        ("a#b.tsv", ["a#b.tsv"]),
        (",", []),
    ],
)
def test_names_are_quoted_as_in_a_shell(text: str, names: list[str]) -> None:
    assert list(parse_datasets(text)) == names


def test_what_is_listed_is_read_again() -> None:
    names = ["MMStar", "a b", "a,b", "it's", 'a"b', "a\\b", "我的.tsv", "x\ty"]
    assert list(parse_datasets(list_datasets(names))) == names


def test_a_quote_that_is_not_closed_is_a_bad_value(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="is not accepted: data takes dataset names"):
        load_from(call_sources({"data": "'a.tsv", "model": "demo"}, tmp_path, {}))


def test_keywords_take_one_name_each(tmp_path: Path) -> None:
    keywords = {"data": ["a,b.tsv", "My Bench", "我的.tsv"], "model": "demo"}
    settings = load_from(call_sources(keywords, tmp_path, {}))
    assert settings.data == (
        str(tmp_path / "a,b.tsv"),
        "My Bench",
        str(tmp_path / "我的.tsv"),
    )


def test_a_task_file_names_one_dataset_each(tmp_path: Path) -> None:
    task = read_task(tmp_path, swift_task(data=["my data.tsv", "a,b", "MME"]))
    names = parse_datasets(task.values["data"].text)
    assert names == ("my data.tsv", "a,b", "MME")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("my-17.b+c", True),
        ("我的 数据", True),
        ("全角\u3000空", True),
        ("a,b", True),
        ("a[1]", False),
        ("a::b", False),
        ("a/b", False),
        (" a", False),
        ("a\nb", False),
        ("a\udce4", False),
        ("", False),
    ],
)
def test_what_a_dataset_may_be_called(name: str, fits: bool) -> None:
    assert can_be_name(name) is fits


def test_the_name_of_a_packed_table() -> None:
    assert dataset_name("x/my.tsv.gz") == "my"
    assert dataset_name("my.v2.TSV") == "my.v2"
    assert dataset_name("my.v2") == "my.v2"


def test_the_parts_of_a_name_without_quotes_lead_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, here = tmp_path / "LMUData", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (root / "Our Own.tsv", here / "My Plain, 2.tsv", here / "Plain.tsv"):
        path.touch()

    def said(name: str) -> str:
        return str(unknown_dataset(name, known("MMStar"), known("Demo"), root))

    assert (
        f"Unknown dataset: 'My'. There is {here}/My Plain, 2.tsv, which "
        "--vlm-data='My Plain, 2.tsv' takes. Accepted"
    ) in said("My")
    given = shlex.quote("'Our Own'")
    assert (
        f"There is {root}/Our Own.tsv, which is the dataset 'Our Own' "
        f"(--vlm-data={given}). Accepted"
    ) in said("Our")
    # A shell and this plugin read what is advised as the name.
    (word,) = shlex.split(given)
    assert list(parse_datasets(word)) == ["Our Own"]
    assert "There is" not in said("Mine")


def test_a_file_that_lies_in_lmudata_alone_is_named(tmp_path: Path) -> None:
    root = tmp_path / "LMUData"
    root.mkdir()
    write_table(root / "MyBench.tsv", [ROW])
    path = tmp_path / "MyBench.tsv"
    with pytest.raises(VlmEvalError) as caught:
        check_exists(str(path), root)
    assert str(caught.value) == (
        f"MyBench: there is no file {path}. Name a table that exists (.tsv, .csv, "
        ".jsonl, .json, each also with .gz, or .parquet), or a folder with one. There "
        f"is {root}/MyBench.tsv, which is the dataset that --vlm-data=MyBench takes."
    )


def test_a_file_in_lmudata_is_taken_by_the_name_that_the_message_gives(
    named: Project, server: ServerProcess
) -> None:
    text = error_of(named.ask(server.url, "--vlm-data=MyBench.tsv"))
    advised = re.search(r"the dataset that (--vlm-data=\S+) takes", text)
    assert advised is not None
    assert named.ask(server.url, advised[1]).parseoutcomes()["passed"] == 2


def known(*names: str) -> dict[str, DatasetInfo]:
    """Give a catalog of these names."""
    return {
        name: DatasetInfo(name=name, class_name="", module="", kind="vqa")
        for name in names
    }


def test_an_unknown_name_whose_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, here = tmp_path / "LMUData", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (root / "my-bench.tsv", here / "My Bench.tsv", here / "mybench.xlsx"):
        path.touch()
    catalog = known("MMStar", "POPE")
    accepted = (
        " Accepted are the 2 names of the installed ms-vlmeval and Demo, with their "
        "upper and lower case, and NAME for a table NAME.tsv, .csv, .jsonl, .json or "
        f".parquet in {root}."
    )

    def said(name: str) -> str:
        return str(unknown_dataset(name, catalog, known("Demo"), root))

    assert said("MyBench") == (
        f"Unknown dataset: 'MyBench'. There is {root}/my-bench.tsv, which is the "
        f"dataset 'my-bench'. There is {here}/My Bench.tsv, which "
        f"--vlm-data='My Bench.tsv' takes. There is {here}/mybench.xlsx, which is no "
        f"table that is read: write it as a CSV.{accepted}"
    )
    assert said("MMStarr") == (
        f"Unknown dataset: 'MMStarr'. Did you mean MMStar?{accepted}"
    )
    assert said("MMStar, POPE") == (
        "Unknown dataset: 'MMStar, POPE'. These are several: give one name each."
        f"{accepted}"
    )
    assert find_table("my-bench", root) == root / "my-bench.tsv"
    assert find_table("MyBench", root) is None
    assert find_table("../here/My Bench", root) is None


def test_a_message_s_option_takes_the_file(
    named: Project, server: ServerProcess
) -> None:
    write_table(named.pytester.path / "My Own.tsv", [ROW])
    result = named.ask(server.url, "--vlm-data=my_own")
    said = error_of(result)
    path = named.pytester.path / "My Own.tsv"
    advice = f"There is {path}, which --vlm-data='My Own.tsv' takes."
    assert said.startswith(f"Unknown dataset: 'my_own'. {advice}")
    # As a shell hands it over.
    named.ask(server.url, "--vlm-data=My Own.tsv").assert_outcomes(
        passed=2, deselected=1
    )


def test_a_name_of_the_catalog_stays_the_published_dataset(
    named: Project, server: ServerProcess
) -> None:
    write_table(named.data_root / "POPE.tsv", [ROW])
    result = named.run(
        *endpoint(server.url)[:2], "--vlm-data=POPE", "--vlm-offline", "-rf"
    )
    assert "POPE.tsv is not the published file: its MD5 is" in str(result.stdout)


def test_a_packed_table_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "my.tsv.gz"
    rows = ("\t".join({**ROW, "index": str(n)}.values()) for n in range(5_000))
    text = "\n".join(["\t".join(ROW), *rows, ""])
    whole = gzip.compress(text.encode())
    path.write_bytes(whole)
    assert read_facts([path]).kind == "multiple_choice"
    for data in (whole[:-9], whole[:12], b"\x1f\x8b\x08\x00"):
        path.write_bytes(data)
        with pytest.raises(VlmEvalError) as caught:
            read_facts([path])
        assert str(caught.value).startswith(f"{path} cannot be unpacked (")
        assert str(caught.value).endswith(
            "): it is not a whole gzip file. Pack the table again, or name the file "
            "itself."
        )
