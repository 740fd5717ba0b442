"""The images of failed samples, in the reports of pytest-html and allure-pytest."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from pytest_vlmeval.run import Run

# Large enough to read, small enough for a report that keeps each test's own copy:
# the longest side in pixels, and WebP's quality.
SIDE, QUALITY = 768, 75
# Of a video this many frames are shown.
MOST = 8


class Attachments:
    """Adds the images of its sample to each failed item, as those plugins take them.

    Lives in every process that runs tests. `find_run` gives the run of this one.
    """

    def __init__(
        self, find_run: Callable[[], Run], *, html: bool, allure: bool
    ) -> None:
        self._find_run = find_run
        self._html = html
        self._allure = allure

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach images to the report of a failure."""
        report = yield
        if report.when == "call" and report.failed:
            for name, image in self._images(item):
                self._attach(report, image, name)
        return report

    def _images(self, item: pytest.Item) -> Iterator[tuple[str, str]]:
        """Yield the images of an item's sample, with their names, if it has one."""
        from pytest_vlmeval.records import parts_of
        from pytest_vlmeval.reports.html import Tier, encode
        from pytest_vlmeval.suite.views import SampleView

        sample = getattr(item, "funcargs", {}).get("vlm_sample")
        if not isinstance(sample, SampleView):
            return
        library = self._find_run().library
        try:
            request = library.request(sample.dataset, sample.index)
        except VlmEvalError:
            return  # A row that cannot be asked; the failure says why.
        parts = parts_of(request.turns)
        media = [part.media for part in parts if part.kind == "image"]
        for number, name in enumerate(media[:MOST], 1):
            image = encode(request.media_folder / name, Tier(SIDE, QUALITY))
            if image is not None:
                yield f"{sample.dataset}-{sample.index}, image {number}", image

    def _attach(self, report: pytest.TestReport, image: str, name: str) -> None:
        if self._html:
            from pytest_html import extras

            extra = extras.image(image, name, "image/webp", "webp")
            # Where pytest-html looks for what others add.
            vars(report).setdefault("extras", []).append(extra)
        if self._allure:
            import allure

            data = base64.b64decode(image)
            allure.attach(
                data, name=name, attachment_type="image/webp", extension="webp"
            )


def register_attachments(config: pytest.Config, find_run: Callable[[], Run]) -> None:
    """Stand by where pytest-html or allure-pytest writes a report."""
    html = bool(config.getoption("htmlpath", None))
    allure = bool(config.getoption("allure_report_dir", None))
    if html or allure:
        attachments = Attachments(find_run, html=html, allure=allure)
        config.pluginmanager.register(attachments, "vlmeval-attachments")
