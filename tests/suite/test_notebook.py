"""Results in a notebook: what IPython shows of them, escaped and bounded."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from pytest_vlmeval import Results, evaluate
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.reports import gallery
from pytest_vlmeval.reports.record import load_run
from pytest_vlmeval.run.store import Store
from tests.support.report_store import HOSTILE, fill_store
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

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
