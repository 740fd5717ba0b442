"""Takes the screenshot of the README: the report of a run of the demo, in Chromium.

python docs/screenshot.py [FILE]
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
SCREENSHOT = Path(__file__).with_name("images") / "report.webp"
WIDTH, HEIGHT = 1100, 720


def write_report(folder: Path) -> Path:
    """Evaluate the demo model, and return the report."""
    report = folder / "report.html"
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", ROOT / "benchmarks/test_demo.py"),
            *("--rootdir=.", "--vlm-model=demo", f"--vlm-report={report}"),
        ],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return report


def take_screenshot(report: Path) -> bytes:
    """Return what a browser shows of the report first, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
        )
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        screenshot = page.screenshot()
        browser.close()
    return screenshot


def main(path: Path) -> None:
    """Take the screenshot and write it as WebP."""
    with tempfile.TemporaryDirectory() as folder:
        screenshot = take_screenshot(write_report(Path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(screenshot)).convert("RGB").save(path, quality=82, method=6)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENSHOT)
