"""The HTML report of whole runs in a real browser: a large one, and real images.

Screenshots of what is asserted here stay in the folder that `--screenshots` names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from pytest_vlmeval.reports.html import write_html
from pytest_vlmeval.reports.record import load_run
from pytest_vlmeval.run.store import Store
from tests.support.report_browser import SIZES, Open, browser, open_report, screenshots
from tests.support.report_store import fill_store
from tests.support.run_fixtures import Project

__all__ = ["browser", "open_report", "screenshots"]
pytestmark = pytest.mark.browser
SHARED = Path(__file__).parents[3] / "shared/data/LMUData/MathVision_MINI.tsv"
OPEN_LIMIT_S = 2.0


def processor_s(path: Path, browser: Browser) -> float:
    """Return the processor time, in s, of a page from nothing to its first samples."""
    page = browser.new_page()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(f"{path.as_uri()}#view=samples")
    page.locator("#grid .sample img").first.wait_for(timeout=60_000)
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    page.close()
    values = {each["name"]: each["value"] for each in metrics}
    return float(values["TaskDuration"])


def test_fifteen_thousand_samples(
    tmp_path: Path,
    browser: Browser,
    open_report: Open,
    figure: Callable[[str], None],
) -> None:
    run_id = fill_store(tmp_path, tmp_path / "cache", 15_000, images=400)
    store = Store(tmp_path)
    report = load_run(store, tmp_path / "cache", run_id)
    store.close()
    path = tmp_path / "report.html"
    write_html(report, path, max_mb=30)
    start = time.perf_counter()
    page = open_report(path)
    page.get_by_role("link", name="Samples", exact=True).click()
    page.locator("#grid .sample img").first.wait_for()
    opened_s = time.perf_counter() - start
    # What the page's own thread needs: how long that takes is also a matter of what
    # else runs on this machine.
    busy_s = processor_s(path, browser)
    assert busy_s < OPEN_LIMIT_S
    assert page.locator("#grid .sample").count() < 60
    frames = page.evaluate(SCROLL)
    frame_ms = sorted(frames)[len(frames) // 2]
    figure(
        f"15,000 samples open in {opened_s:.2f} s, {busy_s:.2f} s of them busy; "
        f"a frame of scrolling takes {frame_ms:.0f} ms"
    )
    assert page.locator("#status").inner_text() == "15,000 samples"
    last = page.locator("#grid .sample").last.get_attribute("aria-label") or ""
    assert last.startswith("Artificial-14999, ")
    assert page.locator("#grid .sample").count() < 60


# Scrolls from the first sample to the last in 60 steps; gives milliseconds per frame.
SCROLL = """async () => {
  const frames = [];
  const end = document.documentElement.scrollHeight;
  for (let step = 1; step <= 60; step++) {
    const start = performance.now();
    scrollTo(0, end * step / 60);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - start);
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  return frames;
}"""


@SIZES
def test_a_run_of_the_demo_model(
    project: Project, open_report: Open, size: tuple[int, int], screenshots: Path
) -> None:
    project.pytester.makepyfile(
        test_demo="""
        from pytest_vlmeval import Benchmark

        class TestDemo(Benchmark):
            datasets = ["DemoChoice", "DemoYesNo", "DemoOpen"]
        """
    )
    result = project.run("--vlm-model=demo", "--vlm-report=report.html", "-n2")
    result.stdout.fnmatch_lines(["vlmeval: report: */report.html (* MB)"])
    page = open_report(project.pytester.path / "report.html", size)
    expect(page.locator("h1")).to_have_text("demo")
    expect(page.locator(".scores tbody tr")).to_have_count(3)
    page.screenshot(path=screenshots / f"overview-{size[0]}.png", full_page=True)
    page.get_by_role("link", name="DemoChoice").click()
    expect(page.locator("#dataset-0 .matrix")).to_be_visible()
    page.screenshot(path=screenshots / f"dataset-{size[0]}.png", full_page=True)
    page.get_by_role("link", name="See its 40 samples").click()
    expect(page.locator("#status")).to_have_text("40 of 120 samples")
    page.locator("#grid .sample img").first.wait_for()
    page.screenshot(path=screenshots / f"grid-{size[0]}.png")


@pytest.mark.skipif(
    not SHARED.is_file(), reason="the file of MathVision_MINI is absent"
)
def test_real_images(project: Project, open_report: Open, screenshots: Path) -> None:
    (project.data_root / "MathVision_MINI.tsv").symlink_to(SHARED)
    project.pytester.makepyfile(
        test_math="""
        from pytest_vlmeval import Benchmark

        class TestMath(Benchmark):
            datasets = ["MathVision_MINI"]
        """
    )
    arguments = ["--vlm-allow-modified-data", "--vlm-limit=60"]
    project.run("--vlm-model=demo", *arguments, "--vlm-report=report.html")
    page = open_report(project.pytester.path / "report.html")
    page.goto(page.url + "#view=samples")
    page.locator("#grid .sample img").nth(3).wait_for()
    loaded = "images => images.every(image => image.complete && image.naturalWidth > 0)"
    shown = "[...document.querySelectorAll('#grid .sample img')]"
    page.wait_for_function(f"({loaded})({shown})")
    assert page.locator("#grid .sample img").count() >= 4
    page.screenshot(path=screenshots / "images.png")
