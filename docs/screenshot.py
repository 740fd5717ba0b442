"""Takes the pictures of the gallery and the README, in Chromium: make screenshot.

python docs/screenshot.py [FOLDER]
"""

from __future__ import annotations

import html
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).with_name("images")
PROGRAMS = Path(sys.executable).parent
COLUMNS = 100
DESKTOP, PHONE = (1100, 720), (390, 720)
# The project of the tutorial, with the gate that fails.
PROJECT = {
    "test_shapes.py": """\
from pytest_vlmeval import Benchmark


class TestShapes(Benchmark):
    datasets = ["DemoChoice", "DemoOpen"]
""",
    "thresholds.toml": """\
[demo.DemoChoice]
min = 80

[demo.DemoOpen]
min = 99
rule = "point"
""",
}
NOTEBOOK = """\
from pytest_vlmeval import evaluate

results = evaluate("demo", ["DemoChoice", "DemoOpen"], progress=lambda line: None)
results"""
PAGE = """\
<!doctype html>
<meta charset="utf-8">
<style>
  body {{ margin: 0; padding: 16px; font: 15px/1.4 sans-serif; background: {paper}; }}
  pre {{ margin: 0; font: 14px/1.35 "DejaVu Sans Mono", monospace; }}
  .cell {{ display: flex; gap: 12px; margin-bottom: 16px; }}
  .cell pre {{ flex: 1; padding: 10px; background: #f5f5f5; border: 1px solid #ddd; }}
  .cell > span {{ color: #307fc1; font-family: monospace; padding-top: 10px; }}
</style>
{body}
"""


def run(folder: Path, *arguments: str, environ: Mapping[str, str] = {}) -> str:
    """Run a program of the environment in a folder, and return what it printed."""
    done = subprocess.run(
        [PROGRAMS / arguments[0], *arguments[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": str(COLUMNS), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


def evaluate_demo(folder: Path) -> Path:
    """Evaluate the demo model as `make demo` does, and return the report."""
    report = folder / "demo.html"
    suite = str(ROOT / "benchmarks/test_demo.py")
    options = ("--rootdir=.", "--vlm-model=demo", f"--vlm-report={report}")
    print(run(folder, "pytest", "-q", suite, *options).splitlines()[-1])
    return report


def evaluate_project(folder: Path) -> str:
    """Run the tutorial's project, with its reports, and return the terminal's text."""
    for name, text in PROJECT.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = "pytest --vlm-model=demo --vlm-report=report.html --junitxml=report.xml"
    # Other plugins would only name themselves.
    plugins = "pytest_vlmeval.plugin,syrupy"
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": plugins}
    output = run(folder, *command.split(), "--color=yes", environ=environ)
    shown = output.replace(f"{folder}/", "").replace(str(folder), folder.name)
    return f"$ {command}\n{shown}"


def write_terminal(folder: Path, output: str) -> Path:
    """Write what the terminal showed as a page."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(output))
    lines = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    return write_page(folder / "terminal.html", lines, paper="white")


def write_junit(folder: Path) -> Path:
    """Let junit2html, a viewer of JUnit files, show the one of the project's run."""
    run(folder, *"uv tool run -q junit2html report.xml junit.html".split())
    return folder / "junit.html"


def write_notebook(folder: Path) -> Path:
    """Write the cell of a notebook, and the table that its last line gives."""
    code = f"{NOTEBOOK}\nopen('table.html', 'w').write(results._repr_html_())"
    print(run(folder, "python", "-c", code).strip())
    table = (folder / "table.html").read_text(encoding="utf-8")
    body = (
        f'<div class="cell"><span>[1]:</span><pre>{html.escape(NOTEBOOK)}</pre></div>'
        f'<div class="cell"><span>[1]:</span><div>{table}</div></div>'
    )
    return write_page(folder / "notebook.html", body, paper="white")


def write_page(path: Path, body: str, *, paper: str) -> Path:
    """Write a page around what is to be shown, on paper of a colour."""
    path.write_text(PAGE.format(body=body, paper=paper), encoding="utf-8")
    return path


def open_page(browser: Browser, path: Path, size: tuple[int, int]) -> Page:
    """Open a file in a window of this size; a report once it has drawn itself."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(path.as_uri())
    if "data-ready" in path.read_text(encoding="utf-8"):
        page.wait_for_selector("html[data-ready]")
    return page


def open_wrong_sample(page: Page) -> None:
    """Open the first sample that the report's gates or failures lead to."""
    page.locator("a[href*='sample=']").first.click()
    page.wait_for_timeout(500)


def open_failure(page: Page) -> None:
    """Go from a viewer's list of failures to the first of them."""
    page.locator("a", has_text="[F]").first.click()


def main(folder: Path) -> None:
    """Take each picture, and write it as WebP into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        demo, project = Path(place) / "demo", Path(place) / "shapes"
        demo.mkdir()
        project.mkdir()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )

        def take(
            name: str,
            path: Path,
            size: tuple[int, int] = DESKTOP,
            act: Callable[[Page], None] | None = None,
            *,
            whole: bool = False,
        ) -> None:
            page = open_page(browser, path, size)
            if act is not None:
                act(page)
            picture = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
            file = folder / f"{name}.webp"
            picture.convert("RGB").save(file, quality=82, method=6)
            print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")

        take("report", evaluate_demo(demo))
        output = evaluate_project(project)
        take("terminal", write_terminal(project, output), (900, 200), whole=True)
        take("report-failed", project / "report.html")
        take("report-sample", project / "report.html", act=open_wrong_sample)
        take("report-phone", project / "report.html", PHONE)
        take("junit", write_junit(project), act=open_failure)
        take("notebook", write_notebook(project), (900, 200), whole=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
