"""`pytest_vlmeval.evaluate`: a run without a session, and its results in a notebook."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import pytest_vlmeval
from pytest_vlmeval import Results, evaluate
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.reports import gallery
from pytest_vlmeval.reports.record import load_run
from pytest_vlmeval.run.store import Store
from tests.support.canaries import written_below
from tests.support.report_store import HOSTILE, fill_store
from tests.support.run_fixtures import Project, image_bytes
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

KEY = "canary-key-5f0b71"


@pytest.fixture
def notebook(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a user's folder as the current one, with a dataset of four rows."""
    project.write_math(4)
    monkeypatch.chdir(project.pytester.path)
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    return project


def asked(server: ServerProcess) -> int:
    """Count the questions of datasets that a server was asked."""
    return sum("uestion" in str(each["text"]) for each in server.requests())


def test_a_call_and_a_session_share_their_answers(
    notebook: Project, server: ServerProcess
) -> None:
    """Each of them finds what the other one asked; options are named alike."""
    (notebook.pytester.path / "pytest.ini").write_text(
        "[pytest]\nvlm_max_tokens = 99\nvlm_system_prompt = Be brief.\n"
    )
    server.control(default="B")
    told: list[str] = []
    results = evaluate(
        "tiny-vlm",
        ["MathVision_MINI"],
        api_base=server.url,
        limit=3,
        retries=1,
        progress=told.append,
    )
    assert asked(server) == 3
    # The ini file counts as it does for pytest.
    assert server.requests()[-1]["params"] == {"max_tokens": 99, "temperature": 0.0}
    assert results.model == "tiny-vlm"
    session = notebook.ask(server.url)
    session.assert_outcomes(passed=3, xfailed=2, deselected=1)
    assert asked(server) == 4  # the fourth, which the call had left out
    again = evaluate(
        "tiny-vlm", "MathVision_MINI", api_base=server.url, progress=told.append
    )
    assert asked(server) == 4
    assert again.run_id == results.run_id
    assert len(notebook.stored("SELECT 1 FROM runs")) == 1
    _check_tables(again)


def _check_tables(results: Results) -> None:
    scores = results.scores
    assert scores[["dataset", "samples", "answered", "correct"]].values.tolist() == [
        ["MathVision_MINI", 4, 4, 2]
    ]
    assert scores.loc[0, "value"] == 50
    assert results.score("MathVision_MINI").value == 50
    assert not scores.loc[0, "unscored"]
    samples = results.samples
    assert list(samples["index"]) == ["1", "2", "3", "4"]
    assert list(samples["outcome"]) == ["wrong", "correct", "wrong", "correct"]
    assert set(samples["answer"]) == {"B"}
    main = results.metrics.query("main")
    assert list(main["value"]) == [50]
    page = results._repr_html_()
    assert "<table" in page
    assert "MathVision_MINI" in page
    assert "50.00" in page
    assert "MathVision_MINI" in str(results)
    with pytest.raises(VlmEvalError) as caught:
        results.score("MMStar")
    assert str(caught.value) == (
        "MMStar has no score: it was not asked. The datasets here are: MathVision_MINI."
    )


def test_a_table_of_scores_counts_the_unread_and_those_by_a_defect(
    notebook: Project, server: ServerProcess
) -> None:
    """Samples 1 and 3 are right by the defect; 2 is not read, and 4 is plainly B."""
    server.control(default="A", answers={"<2>": "I am not sure.", "<4>": "B"})
    asking: dict[str, Any] = {"api_base": server.url, "retries": 1, "reuse": "always"}
    columns = ["unread", "verdicts_by_defect", "score_without_defects", "value"]
    published = evaluate("tiny-vlm", "MathVision_MINI", **asking)
    assert published.scores[columns].values.tolist() == [[1, 2, 25, 75]]
    assert published.scores["scoring"].tolist() == ["published"]
    corrected = evaluate("tiny-vlm", "MathVision_MINI", scoring="corrected", **asking)
    scores = corrected.scores
    assert set(corrected.metrics["scoring"]) == set(scores["scoring"]) == {"corrected"}
    assert scores[["unread", "verdicts_by_defect", "value"]].values.tolist() == [
        [1, 0, 25]
    ]
    assert scores["score_without_defects"].isna().all()
    assert asked(server) == 4


def test_frames_inside_an_event_loop(notebook: Project, server: ServerProcess) -> None:
    """As in a notebook, where a loop runs; images in any form that Python has."""
    server.control(default="yes")
    image = Image.new("RGB", (8, 8), "red")
    image.save("there.png")
    frame = pd.DataFrame(
        {
            "question": ["Question 1?", "Question 2?", "Question 3?"],
            "answer": ["yes", "no", "yes"],
            "image": [image, image_bytes(1), base64.b64encode(image_bytes(2)).decode()],
        }
    )
    paths = pd.DataFrame(
        {"question": ["Question?"], "answer": ["yes"], "image_path": ["there.png"]}
    )

    async def cell() -> Results:
        return evaluate(
            model="tiny-vlm",
            datasets={"mine": frame, "files": paths},
            api_base=[server.url],
            progress=lambda line: None,
        )

    results = asyncio.run(cell())
    assert asked(server) == 4
    sent = [each["images"] for each in server.requests() if each["images"]]
    assert len(sent) >= 4
    assert list(results.scores["dataset"]) == ["mine", "files"]
    assert list(results.scores["correct"]) == [2, 1]
    # Equal data are the same dataset, and asked once.
    evaluate("tiny-vlm", {"mine": frame}, api_base=server.url, progress=str)
    assert asked(server) == 4


def test_a_call_without_scores_and_with_reports(
    notebook: Project, server: ServerProcess
) -> None:
    results = evaluate(
        "tiny-vlm",
        ["MathVision_MINI"],
        api_base=server.url,
        mode="infer",
        limit=2,
        export=Path("out"),
        progress=str,
    )
    assert dict(results.unscored) == {"MathVision_MINI": "only asked (mode='infer')"}
    assert asked(server) == 2
    assert (notebook.pytester.path / "out" / "samples.parquet").is_file()
    assert any("results: " in remark for remark in results.remarks)
    assert "<li>" in results._repr_html_()


def count_answers(project: Project) -> int:
    """Count the usable answers in the store, which may not be there yet."""
    if not project.store.exists():
        return 0
    try:
        query = "SELECT 1 FROM answers WHERE state = 'answered'"
        return len(project.stored(query))
    except sqlite3.OperationalError:
        return 0


def test_an_interrupted_call_ends_and_keeps_its_answers(
    notebook: Project, server: ServerProcess
) -> None:
    server.control(rules=[{"contains": "<3>", "latency_s": 60}])
    code = (
        "import pytest_vlmeval as p\n"
        f"p.evaluate('tiny-vlm', 'MathVision_MINI', api_base='{server.url}')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    )
    while count_answers(notebook) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert count_answers(notebook) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "evaluate() was given no dataset. Name some: datasets=['MMStar']; "),
        ({"datasets": "MMStarr"}, "MMStarr"),
        (
            {"datasets": "no.tsv"},
            "no: there is no file",
        ),
        (
            {"limitt": 3},
            "evaluate() has no keyword limitt. Did you mean limit? Its keywords are "
            "the options of `pytest --help` without --vlm-, with _ for -.",
        ),
        (
            {"api_key": "k"},
            "evaluate() has no keyword api_key, as keys in a notebook are shared with "
            "it: set VLM_API_KEY, or give api_key_file.",
        ),
        (
            {"serve": "vllm {port}"},
            "evaluate() has no keyword serve, which belongs to a pytest session: start "
            "the server, and give its address as api_base.",
        ),
        (
            {"limit": 0},
            "limit=0 is not accepted: limit takes a whole number of at least 1 "
            "(samples).",
        ),
        (
            {"limit": object()},
            "limit is of the type object. It takes what --vlm-limit takes: a whole "
            "number of at least 1 (samples).",
        ),
        (
            {"datasets": [3]},
            "datasets has a int. It takes names, paths of tables, or a mapping of "
            "names to DataFrames: {'mine': frame}.",
        ),
        (
            {"datasets": {"a/b": pd.DataFrame({"question": ["q"]})}},
            "'a/b' cannot be the name of a dataset: give one without ",
        ),
        (
            {"datasets": {"m": pd.DataFrame({"image": [3]})}},
            "m, row 1: its image is of the type int. It takes bytes, an image of "
            "Pillow, base64, or a list of these.",
        ),
        (
            {"config": [KEY]},
            "config is of the type list. It takes the path of a task file (.yaml, .yml "
            "or .json), or the task as a dict: {'eval_backend': 'VLMEvalKit', "
            "'eval_config': {...}}.",
        ),
        ({"config": 5}, "config is of the type int. It takes the path of a task file"),
        (
            {"config": swift_task(limit="many")},
            "eval_config.limit (a text) in config is not accepted: limit takes a whole "
            "number of at least 1 (samples).",
        ),
        ({"data": "MME"}, "evaluate() takes the datasets as datasets, not data."),
        (
            {"datasets": ["MME"], "mode": "report"},
            "evaluate() asks and scores, and mode='report' does neither: it belongs to "
            "the command line. Leave mode out: stored answers are not asked again.",
        ),
    ],
)
def test_what_a_call_cannot_do(
    notebook: Project, options: dict[str, object], said: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        evaluate("demo", progress=str, **options)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_what_a_refused_call_advises_works(
    notebook: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.control(default="B", api_key=KEY)
    data = "MathVision_MINI"
    asking: dict[str, Any] = {"api_base": server.url, "limit": 2, "progress": str}

    def refused(said: str, **options: Any) -> None:
        with pytest.raises(VlmEvalError) as caught:
            evaluate("tiny-vlm", **{"datasets": data, **asking, **options})
        assert said in str(caught.value)

    # A key: from a file or the environment. A session's keyword: what it stands for.
    refused("set VLM_API_KEY, or give api_key_file.", api_key=KEY)
    file = notebook.pytester.path / "key"
    file.write_text(KEY)
    results = evaluate("tiny-vlm", data, **asking, api_key_file=file)
    assert asked(server) == 2
    refused("as keys in a notebook are shared", judge_api_key=KEY)
    monkeypatch.setenv("VLM_API_KEY", KEY)
    monkeypatch.setenv("VLM_JUDGE_API_KEY", KEY)
    evaluate("tiny-vlm", data, **asking, fresh=True)
    assert asked(server) == 4
    refused("start the server, and give its address as api_base.", serve="x {port}")
    refused("and give their addresses as api_base.", serve_replicas=2)
    refused("and give its address as judge_api_base.", judge_serve="x {port}")
    judged = evaluate(
        "tiny-vlm", data, **asking, judge="tiny-vlm", judge_api_base=server.url
    )
    assert judged.scores["samples"].tolist() == [2]
    refused("datasets are downloaded when they are needed", download_only=True)
    # What is meant is named, and its keywords are the options.
    refused("Did you mean limit?", limitt=1)
    refused("has no keyword oops. Its keywords are the options of", oops=1)
    by_option = evaluate("tiny-vlm", data, **{**asking, "limit": 1}, max_tokens=9)
    assert by_option.scores["samples"].tolist() == [1]
    # Datasets: names, or a mapping of names to tables.
    image = Image.new("RGB", (8, 8), "red")
    frame = pd.DataFrame({"question": ["question"], "answer": ["B"], "image": [image]})
    refused("It takes names, paths of tables, or a mapping", datasets=[frame])
    mine = evaluate("tiny-vlm", {"mine": frame}, **asking)
    assert mine.scores["dataset"].tolist() == ["mine"]
    refused("Name some: datasets=['MMStar']; `pytest --vlm-list` shows", datasets=[])
    listed = notebook.run("--vlm-list=MMStar")
    assert sum("MMStar" in line.split()[:2] for line in listed.outlines) == 1

    # The command of the message that names a stored run.
    command = "`pytest --vlm-mode=report --vlm-run=RUN --vlm-export=DIR`"
    refused(f"{command} writes the files of one that is stored", run=results.run_id)
    sent = len(server.requests())
    arguments = shlex.split(command.strip("`"))[1:]
    given = {"RUN": results.run_id, "DIR": "out"}
    for name, value in given.items():
        arguments = [each.replace(f"={name}", f"={value}") for each in arguments]
    assert notebook.run(*arguments).ret == pytest.ExitCode.OK
    assert len(pd.read_parquet(notebook.pytester.path / "out/samples.parquet")) == 2
    assert len(server.requests()) == sent


def everything(error: BaseException) -> str:
    """Give a traceback as pytest's -l shows it, but for the frames of this file."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in whole.stack:
        if frame.filename == __file__:
            frame.locals = None
    return "".join(whole.format())


def test_no_value_of_a_config_is_shown(
    notebook: Project, server: ServerProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    """A task as a dict is asked with its key, which nothing repeats."""
    server.control(default="B", api_key=KEY)
    task = swift_task(
        model={"type": "tiny-vlm", "api_base": server.url, "key": KEY},
        data=["MathVision_MINI"],
    )
    results = evaluate(config=task, retries=1)
    assert list(results.scores["samples"]) == [2]
    assert asked(server) == 2
    assert all(each["with_key"] for each in server.requests())
    said = [*results.remarks, repr(results), results._repr_html_()]
    table = notebook.store.parent / "tiny-vlm" / "tiny-vlm_MathVision_MINI_acc.csv"
    assert table.read_text().startswith("split,")
    assert any("1 result table: " in remark for remark in results.remarks)
    # The same task in a file, and the same run.
    path = write_task(notebook.pytester.path / "task.yaml", task)
    assert evaluate(config=path, retries=1, progress=str).run_id == results.run_id
    path.unlink()

    wrong: list[dict[str, Any]] = [
        {"eval_backend": KEY, "eval_config": {}},
        {"key": KEY},
        swift_task(limit=KEY),
        swift_task(limit=[KEY]),
        swift_task(mode=KEY),
        swift_task(data={"a": KEY}),
        swift_task(model={"headers": {"Authorization": KEY}}),
        swift_task(model={"key": {"a": KEY}}),
        swift_task(model={"api_base": f"http://{KEY}@127.0.0.1/v1"}),
        swift_task(model={"api_base": f"http://127.0.0.1/v1?key={KEY}"}),
        swift_task(extra_body=KEY, base_url="http://127.0.0.1/v1"),
        swift_task(judge="j", judge_key=KEY, judge_base_url=f"127.0.0.1/{KEY}@"),
        swift_task(limit=lambda: KEY),
    ]
    calls: list[dict[str, Any]] = [{"config": task} for task in wrong]
    calls += [
        {"config": [KEY]},
        {"config": {1: KEY}},
        {"limit": {"key": KEY}},
        {"temperature": [{"key": KEY}]},
        {"api_key_file": KEY},
        {"api_query": {"": KEY}},
        {"api_query": KEY},
        {"extra_body": {"password": KEY}},
        {"extra_body": {"a": {KEY}}},
        {"api_base": f"http://user:{KEY}@127.0.0.1/v1"},
        {"api_base": f"ftp://{KEY}@127.0.0.1/v1", "temperature": "x"},
    ]
    for options in calls:
        with pytest.raises(VlmEvalError) as caught:
            evaluate(
                "tiny-vlm",
                "MathVision_MINI",
                # What is stored already needs no endpoint.
                **{"fresh": True, "progress": said.append, **options},
            )
        said.append(everything(caught.value))
    said += capfd.readouterr()
    assert not [text for text in said if KEY in text]
    kept = {
        name: content
        for name, content in written_below(notebook.pytester.path).items()
        if KEY.encode() in content
    }
    assert not kept


def test_importing_the_package_loads_no_engine() -> None:
    probe = (
        "import sys, pytest_vlmeval as p\n"
        "heavy = {'pandas', 'sqlalchemy', 'openai', 'pydantic', 'yaml', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), p.evaluate.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] evaluate\n"
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        _ = pytest_vlmeval.evaluat


HOSTILE_ANSWER = "<img src=x onerror=alert(1)></div><script>alert(2)</script>\x1b[31m"
VOID = {"img", "br"}


class Page(HTMLParser):
    """The elements of a fragment, which have to be closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name == "src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def shell() -> Iterator[Any]:
    """Give the shell that runs a notebook's cells, and shows what they end with."""
    # Its annotations are few, so that mypy is shown none of it.
    shells: Any = import_module("IPython.core.interactiveshell")
    yield shells.InteractiveShell.instance()
    shells.InteractiveShell.clear_instance()


@pytest.fixture
def results(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Results:
    """Give the results of four samples, of which 2 and 4 are right."""
    project.write_math(4)
    monkeypatch.chdir(project.pytester.path)
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    server.control(default="B", answers={"<3>": HOSTILE_ANSWER})
    return evaluate("tiny-vlm", "MathVision_MINI", api_base=server.url, progress=str)


def shown(shell: Any, code: str) -> dict[str, str]:
    """Run a cell and return what a notebook shows of its value, by MIME type."""
    done = shell.run_cell(code)
    done.raise_error()
    data, _ = shell.display_formatter.format(done.result)
    return dict(data)


def test_a_cell_shows_scores_and_samples_with_images(
    results: Results, shell: Any
) -> None:
    shell.user_ns["results"] = results
    page = shown(shell, "results")["text/html"]
    assert Page(page).tags.count("tr") == 2
    assert "<th>90 % interval</th>" in page
    assert "<td>50.00</td>" in page
    interval = results.interval("MathVision_MINI")
    assert interval is not None
    assert f"<td>{interval.low:.2f} to {interval.high:.2f}</td>" in page
    # Columns that say nothing of any dataset are left out.
    assert "<th>cut_off</th>" not in page
    assert "<th>modified_data</th>" in page
    frame = shown(shell, "results.scores")["text/html"]
    assert "<th>low</th>" in frame
    page = shown(shell, "results.show()")["text/html"]
    found = Page(page)
    # Samples 1 and 3, each with its image, as small as a notebook needs it.
    assert "<b>tiny-vlm: 2 samples</b>" in page
    assert "<b>MathVision_MINI-1</b>" in page
    assert "<b>MathVision_MINI-3</b>" in page
    assert found.tags.count("img") == 2
    for source in found.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (64, 48)
    # What a model says is text.
    assert "script" not in found.tags
    assert found.attributes == {"src", "alt", "style"}
    assert "&lt;script&gt;alert(2)&lt;/script&gt;\\x1b[31m" in page
    text = shown(shell, "print(gallery := results.show()) or gallery")
    assert set(text) == {"text/plain", "text/html"}
    assert str(results.show()).splitlines()[:2] == [
        "tiny-vlm: 2 samples",
        "MathVision_MINI-1: wrong, answered B, reference 10",
    ]


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    names = [str(name) for name in frame]
    return [dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False)]


def test_which_samples_are_shown(results: Results) -> None:
    assert len(results.show(outcome=None)) == 4
    right = results.show("MathVision_MINI", outcome="correct")
    assert [sample.index for _, sample in right.samples] == ["2", "4"]
    first = results.show(outcome=None, most=1)
    assert (len(first), first.found) == (1, 4)
    assert "tiny-vlm: 4 samples, the first 1" in first._repr_html_()
    assert len(results.show(outcome="failed")) == 0
    with pytest.raises(VlmEvalError) as caught:
        results.show("MathVision_MIN")
    assert str(caught.value) == (
        "MathVision_MIN was not asked. Did you mean MathVision_MINI? The datasets here "
        "are: MathVision_MINI."
    )
    with pytest.raises(VlmEvalError) as caught:
        results.show(outcome="wrongg")
    assert str(caught.value) == (
        "outcome='wrongg' is not accepted. Did you mean wrong? It takes None for any, "
        "or one of correct, wrong, undecided, unscored, empty, filtered, refused, "
        "aborted, failed, missing."
    )


def test_scores_have_intervals_on_one_scale(results: Results) -> None:
    (score,) = rows_of(results.scores)
    interval = results.interval("MathVision_MINI")
    assert interval is not None
    assert (interval.level, interval.method) == (0.9, "Wilson")
    assert (score["low"], score["high"]) == (interval.low, interval.high)
    assert (score["value"], score["scale"]) == (50, 100)
    assert 0 < score["low"] < 50 < score["high"] < 100
    metrics = {row["metric"]: row for row in rows_of(results.metrics)}
    # Counts are no shares, whatever they are.
    assert metrics["Overall/tot"]["value"] == 4
    assert math.isnan(metrics["Overall/tot"]["scale"])
    part = metrics["counting/acc"]
    assert (part["value"], part["scale"]) == (50, 100)
    assert 0 < part["low"] < 50 < part["high"] < 100


def test_shares_go_to_100_where_ms_vlmeval_s_go_to_1(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.pytester.path)
    results = evaluate("demo", ["DemoChoice", "DemoOpen"], progress=str)
    rows = rows_of(results.metrics)
    named = {(row["dataset"], row["metric"]): row for row in rows}
    for dataset, published in (("DemoChoice", 10 / 13), ("DemoOpen", 1200 / 13)):
        row = named[dataset, "count"]
        assert row["published"] == pytest.approx(published)
        share = published if published > 1 else 100 * published
        assert row["value"] == pytest.approx(share)
        assert row["low"] < share < row["high"] <= row["scale"] == 100
    main = [row for row in rows if row["main"]]
    assert [row["value"] for row in main] == [92.5, 95.0]
    assert [row["published"] for row in main] == [0.925, 95.0]


def test_many_samples_and_large_images_are_bounded(
    tmp_path: Path, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = fill_store(tmp_path / "work", tmp_path / "cache", 400)
    store = Store(tmp_path / "work")
    report = load_run(store, tmp_path / "cache", run_id)
    store.close()
    results = Results(report=report, unscored={}, measures={})
    shell.user_ns["results"] = results
    page = shown(shell, "results.show(outcome=None)")["text/html"]
    found = Page(page)
    assert "artificial: 400 samples, the first 20" in page
    assert len(page) < 500_000
    # What a model or a dataset wrote is no markup, and of eight frames four are shown.
    assert not {"script", "svg"} & set(found.tags)
    assert found.attributes == {"src", "alt", "style"}
    assert HOSTILE not in page
    assert "4 images are not shown" in page
    every = shown(shell, "results.show(outcome=None, most=400)")["text/html"]
    assert len(every) < gallery.MOST_BYTES + 400 * 6_000
    # Without room for images, or their files, the texts stay.
    monkeypatch.setattr(gallery, "MOST_BYTES", 10_000)
    small = shown(shell, "results.show(outcome=None)")["text/html"]
    images = Page(small)
    assert 0 < images.tags.count("img") < 10 < found.tags.count("img")
    assert sum(map(len, images.sources)) < 11_000
    assert "not shown" in small
    assert len(re.findall("<b>Artificial-", small)) == 20
