"""Conversations in the HTML report, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from pytest_vlmeval.records import Answer, PromptPart, Said, Start
from pytest_vlmeval.reports.html import write_html
from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport
from tests.support.report_browser import Open, browser, open_report
from tests.support.run_fixtures import image_bytes

__all__ = ["browser", "open_report"]
pytestmark = pytest.mark.browser


def report_of(folder: Path) -> RunReport:
    """Give a run with one conversation that ended in its second turn of three."""
    (folder / "media").mkdir()
    parts = []
    for seed in range(2):
        (folder / "media" / f"{seed}.png").write_bytes(image_bytes(seed))
        parts.append(PromptPart(kind="image", media=f"{seed}.png"))
    questions = [PromptPart(kind="text", text=f"Question {n}?") for n in (1, 2, 3)]
    sample = SampleReport(
        index="7",
        prompt=((parts[0], questions[0]), (questions[1], parts[1]), (questions[2],)),
        reference="['one', 'two', 'three']",
        answer=Answer(
            fingerprint="MMDU-1",
            index="7",
            state="filtered",
            text="It goes on and",
            turns=3,
            earlier=(Said("The first reply.", "I thought."),),
        ),
    )
    dataset = DatasetReport(
        dataset="MMDU",
        fingerprint="MMDU-1",
        modified=False,
        samples=(sample,),
        folder=folder,
    )
    return RunReport(
        version="1",
        run_id="r",
        model="m",
        settings={},
        began_at=0,
        start=Start(),
        scorer="s",
        datasets=(dataset,),
    )


def test_a_conversation_is_shown_turn_by_turn(
    open_report: Open, tmp_path: Path
) -> None:
    write_html(report_of(tmp_path), tmp_path / "report.html", max_mb=1)
    page = open_report(tmp_path / "report.html")
    page.get_by_role("link", name="Samples", exact=True).click()
    page.locator("#grid .sample").first.click()
    body = page.locator("#sheet-body")
    expect(body.locator("h3")).to_contain_text(
        ["Turn 1 of 3", "m", "Turn 2 of 3", "Turn 3 of 3", "Answer to turn 2 of 3"]
    )
    expect(body.locator("img")).to_have_count(2)
    expect(body).to_contain_text("Question 1?")
    expect(body.get_by_text("The first reply.")).to_be_visible()
    expect(body.get_by_text("It goes on and")).to_be_visible()
    page.locator("#close").click()
    # Whatever was said in any turn is found.
    page.locator("#search").fill("first reply")
    expect(page.locator("#grid .sample")).to_have_count(1)
    page.locator("#search").fill("no such words")
    expect(page.locator("#grid .sample")).to_have_count(0)
