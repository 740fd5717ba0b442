"""The options of what is written at the end of a run, or of a stored one later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import parse_file_as, parse_number, parse_one_of

REPORT_OPTIONS: tuple[Option, ...] = (
    make_option(
        "report",
        parse_file_as(".html", ".htm"),
        "a file that ends in .html",
        "write one HTML file with scores, samples and pictures at the end of the run",
        metavar="FILE",
    ),
    make_option(
        "report-max-mb",
        parse_number(0),
        "a number of at least 0 (MB)",
        "size of the pictures in the HTML file, in MB (10^6 bytes); beyond it, samples "
        "that are wrong, changed or failed keep theirs first",
        default="30",
        metavar="MB",
    ),
    make_option(
        "export",
        Path,
        "a folder",
        "write the results as JSON, CSV, Parquet, Markdown and ms-vlmeval's prediction "
        "files into this folder at the end of the run",
        metavar="DIR",
    ),
    make_option(
        "predictions",
        parse_one_of("tsv", "xlsx"),
        "tsv or xlsx",
        "format of the prediction files of --vlm-export; xlsx needs openpyxl",
        default="tsv",
        metavar="FORMAT",
    ),
    make_option(
        "run",
        str,
        "a run's id, the beginning of it, or a model's name",
        "run that --vlm-mode=report is about (default: the newest; --vlm-runs lists "
        "them)",
        metavar="RUN",
    ),
)


def report_settings(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of these options; paths are those from `folder`."""
    report, export = values["report"], values["export"]
    return {
        "report": report and folder / report.expanduser(),
        "report_max_mb": values["report-max-mb"],
        "export": export and folder / export.expanduser(),
        "predictions": values["predictions"],
        "run": values["run"],
    }
