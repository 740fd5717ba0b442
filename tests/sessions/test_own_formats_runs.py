"""Tables of one's own in each format, from --vlm-data to scores, items and reports."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from pytest_vlmeval import evaluate
from tests.support.failed_sessions import error_of
from tests.support.hub_files import json_lines, parquet
from tests.support.hub_server import COMMIT, HubServer
from tests.support.run_fixtures import Project, endpoint, image_bytes
from tests.support.server_fixtures import ServerProcess
from tests.support.video_sets import hub_environment as hub_environment

NAMED = Path(__file__).parents[2] / "benchmarks" / "test_named.py"
DATA = [image_bytes(seed) for seed in (1, 2)]
URL = f"data:image/png;base64,{base64.b64encode(DATA[0]).decode()}"


@pytest.fixture
def own(project: Project, server: ServerProcess) -> Project:
    """Give a project with a table in each format and the benchmark for any of them."""
    folder = project.pytester.path
    shutil.copy(NAMED, folder)
    (folder / "pictures").mkdir()
    for number, data in enumerate(DATA):
        (folder / "pictures" / f"{number}.png").write_bytes(data)
    paths = [f"pictures/{number}.png" for number in (0, 1)]
    choice = {"choices": ["red", "blue"], "answer": "blue"}
    files = {
        "in_csv.csv": "prompt,img,A,B,label\n"
        + "".join(f"<csv{n}>?,{path},red,blue,B\n" for n, path in enumerate(paths)),
        "in_json.json": json.dumps(
            {"data": [{"id": f"q{n}", "problem": f"<j{n}>?", **choice} for n in (0, 1)]}
        ),
        "in_jsonl.jsonl": json_lines(
            [{"question": f"<l{n}>?", "image": paths[n], **choice} for n in (0, 1)]
        ).decode(),
        "openai.jsonl": json_lines(
            [{"messages": _messages("<o0>?"), **choice}]
        ).decode(),
        "swift.jsonl": json_lines(
            [
                {
                    "messages": [
                        {"role": "user", "content": f"<image>What? <s{n}>"},
                        {"role": "assistant", "content": "B"},
                    ],
                    "images": [paths[n]],
                }
                for n in (0, 1)
            ]
        ).decode(),
        "pictures/metadata.csv": "file_name,question,answer,options\n"
        + "".join(f'{n}.png,<f{n}>?,B,"[""red"", ""blue""]"\n' for n in (0, 1)),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    rows = [
        {"question": f"<p{n}>?", "image": {"bytes": DATA[n], "path": None}, **choice}
        for n in (0, 1)
    ]
    (folder / "in_parquet.parquet").write_bytes(parquet(rows, "image"))
    shutil.copy(folder / "in_csv.csv", project.data_root / "Convention.csv")
    (project.data_root / "pictures").symlink_to(folder / "pictures")
    server.control(default="B")
    return project


def _messages(text: str) -> list[dict[str, object]]:
    image = {"type": "image_url", "image_url": {"url": URL}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]


SIZES = {
    "in_csv": 2,
    "in_json": 2,
    "in_jsonl": 2,
    "in_parquet": 2,
    "openai": 1,
    "swift": 2,
    "pictures": 2,
    "Convention": 2,
}
GIVEN = [
    "--vlm-data=in_csv.csv,in_json.json,in_jsonl.jsonl,in_parquet.parquet",
    "--vlm-data=openai.jsonl",
    "--vlm-data=swift.jsonl,pictures/,Convention",
]


def test_each_format_is_asked_scored_resumed_and_selected(
    own: Project, server: ServerProcess
) -> None:
    result, cases = own.junit(*endpoint(server.url), *GIVEN, "-n2")
    result.assert_outcomes(passed=sum(SIZES.values()) + len(SIZES), skipped=0)
    for name in SIZES:
        assert f"test_score[{name}]" in cases
    assert "test_sample[in_json-q1]" in cases
    for line in (
        "in_csv.csv: question from 'prompt', answer from 'label', image from 'img'",
        "in_json.json: index from 'id', question from 'problem', options from "
        "'choices', the letters of answers from the options' texts",
        "swift.jsonl: image from 'images', prompts as the messages have them",
        "pictures: image_path from 'file_name'",
    ):
        result.stdout.fnmatch_lines([f"*{line.replace('[', '[[]')}*"])
    # Each image is sent, and a whole prompt as it is written.
    sent = [each for each in server.requests() if "<s0>" in str(each["text"])]
    assert [str(each["text"]) for each in sent] == ["What? <s0>"]
    count = len(server.requests())
    own.ask(server.url, *GIVEN, "--vlm-wrong=fail").assert_outcomes(
        passed=sum(SIZES.values()) + len(SIZES), deselected=1
    )
    assert len(server.requests()) <= count + 1  # the spot check
    one = own.ask(server.url, *GIVEN, "-k", "in_json-q1")
    assert one.parseoutcomes()["passed"] == 1
    wrong = own.ask(server.url, "--vlm-data=swift.jsonl", "-q", "--collect-only")
    wrong.stdout.fnmatch_lines(["test_named.py::TestNamed::test_sample[[]swift-1]"])


def test_columns_are_given_by_the_option_and_a_call(
    own: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own.pytester.path
    (folder / "de.csv").write_text("frage,antwort\n<d>?,B\n", encoding="utf-8")
    result = own.ask(server.url, "--vlm-data=de.csv")
    said = str(result.stdout)
    assert "has no column question. It has the columns frage, antwort." in said
    columns = "--vlm-columns=question=frage,answer=antwort"
    own.ask(server.url, "--vlm-data=de.csv", columns).assert_outcomes(
        passed=2, deselected=1
    )
    monkeypatch.chdir(folder)
    results = evaluate(
        "tiny-vlm",
        "de.csv",
        api_base=server.url,
        columns={"question": "frage", "answer": "antwort"},
    )
    assert results.scores["value"].tolist() == [100]


BOTH = """
from pytest_vlmeval import Benchmark

class TestOne(Benchmark):
    datasets = ["de.csv"]
    columns = {"question": "frage", "answer": "antwort"}

class TestTwo(TestOne):
    columns = COLUMNS
"""


def test_a_benchmark_says_what_the_columns_of_its_tables_are_for(
    own: Project, server: ServerProcess
) -> None:
    folder = own.pytester.path
    (folder / "de.csv").write_text("frage,antwort,b\n<d>?,B,B\n", encoding="utf-8")
    test = folder / "test_both.py"
    test.write_text(BOTH.replace("COLUMNS", "TestOne.columns"), encoding="utf-8")
    own.ask(server.url, "test_both.py").assert_outcomes(passed=4, deselected=2)
    test.write_text(BOTH.replace("COLUMNS", '{"what": "frage"}'), encoding="utf-8")
    result = own.ask(server.url, "test_both.py")
    assert (
        "columns = {'what': 'frage'} is not accepted. It maps index, messages, "
        "question, answer, options, image, image_path, category, split, hint, g_index, "
        "answer_from_0, answer_from_1 and A, B, ... for options to names of columns, "
        'each to one: {"question": "prompt"}.'
    ) in str(result.stdout)
    other = '{"question": "frage", "answer": "b"}'
    test.write_text(BOTH.replace("COLUMNS", other), encoding="utf-8")
    result = own.ask(server.url, "test_both.py")
    assert (
        f"{folder}/de.csv: two benchmarks give it different columns, {{'question': "
        "'frage', 'answer': 'antwort'} and {'question': 'frage', 'answer': 'b'}. Give "
        "both the same, or let one have a copy of the table."
    ) in str(result.stdout) + str(result.stderr)


def test_a_name_leads_to_files_of_every_format(
    own: Project, server: ServerProcess
) -> None:
    folder = own.pytester.path
    said = error_of(own.ask(server.url, "--vlm-data=in_csv"))
    assert f"There is {folder}/in_csv.csv, which --vlm-data=in_csv.csv takes." in said
    said = error_of(own.ask(server.url, "--vlm-data=pictures"))
    assert f"There is {folder}/pictures, which --vlm-data=pictures/ takes." in said
    shutil.copy(own.data_root / "Convention.csv", own.data_root / "Convention.tsv")
    said = error_of(own.ask(server.url, "--vlm-data=Convention"))
    assert (
        f"{own.data_root} has several tables of the name Convention: Convention.tsv, "
        "Convention.csv. Remove the others, or name one by its path."
    ) in said


CLASS = """
from pytest_vlmeval import Benchmark

class TestHub(Benchmark):
    datasets = ["hf:org/set:test"]
"""


@pytest.mark.slow
def test_a_repository_of_a_hub_is_a_dataset(
    own: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    folder = own.pytester.path
    parquet_file = (folder / "in_parquet.parquet").read_bytes()
    hub_environment.repositories["org/set"] = {
        "data/test-00000-of-00001.parquet": parquet_file,
        "data/train-00000-of-00001.parquet": parquet_file,
    }
    result, cases = own.junit(
        *endpoint(server.url), "--vlm-data=hf:org/set:test", "-n2"
    )
    result.assert_outcomes(passed=3)
    assert set(cases) == {
        "test_sample[set-test-1]",
        "test_sample[set-test-2]",
        "test_score[set-test]",
    }
    assert len(hub_environment.downloads()) == 1
    result.stdout.fnmatch_lines([f"*set-test: data of org/set@{COMMIT}*"])
    # The commit is with the score.
    result.stdout.fnmatch_lines(
        [f"set-test * Overall 100.00 of 100  data of org/set@{COMMIT}*"]
    )
    # As the dataset of a class, with a threshold, offline.
    (folder / "test_hub.py").write_text(CLASS, encoding="utf-8")
    (folder / "thresholds.toml").write_text(
        '["tiny-vlm"."hf:org/set:test"]\nmin = 50\n', encoding="utf-8"
    )
    given = ["--vlm-offline", "--vlm-thresholds=thresholds.toml", "test_hub.py"]
    again = own.ask(server.url, *given)
    again.assert_outcomes(passed=3, deselected=1)
    assert "gates: 2 passed" in str(again.stdout)
    none = own.ask(server.url, "--vlm-data=hf:org/none", "--vlm-offline")
    none.assert_outcomes(errors=0, failed=1)
    none.stdout.fnmatch_lines(
        ["*hf:org/none: --vlm-offline is set, and the repository org/none is not *"]
    )
