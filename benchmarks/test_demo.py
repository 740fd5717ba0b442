"""Plain colours, shapes and counts, on which the bundled demo model was trained.

This project draws the images and questions, so that a first run needs no
download: 40 held-out samples each of multiple choice, yes/no and open questions.
"""

from __future__ import annotations

from pytest_vlmeval import Benchmark


class TestDemo(Benchmark):
    """Name a colour, a shape or a number of objects."""

    datasets = ("DemoChoice", "DemoYesNo", "DemoOpen")
