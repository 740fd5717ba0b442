"""What runs instead of tests: a set-up, a listing, a report of a stored run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_vlmeval.datasets.download import data_path, size_text
from pytest_vlmeval.datasets.hub import is_cached
from pytest_vlmeval.datasets.unscored import foresee, is_scored
from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.records import DatasetInfo, Hub
from pytest_vlmeval.settings.option import parse_names
from pytest_vlmeval.suite.session import (
    get_settings,
    is_given,
    run_without_workers,
    selects_for_setup,
)

if TYPE_CHECKING:
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.settings import Settings

Write = Callable[[str], None]


def run_runs(config: pytest.Config, write: Write) -> int:
    """List the runs of the store; the `--vlm-runs` command."""
    from pytest_vlmeval.reports.comparison import list_runs

    return _with_store(
        get_settings(config), lambda store: write(list_runs(store.history))
    )


def run_report(config: pytest.Config, write: Write) -> int:
    """Write the reports of a stored run; the `--vlm-mode=report` command."""
    from pytest_vlmeval.reports.record import load_run
    from pytest_vlmeval.reports.terminal import write_reports

    settings = get_settings(config)
    if settings.report is None and settings.export is None:
        raise pytest.UsageError(
            "--vlm-mode=report writes the reports of a stored run, and none is named: "
            "give --vlm-report=FILE.html, --vlm-export=DIR, or both."
        )

    def report(store: Store) -> None:
        run = store.history.find(settings.run, settings.model)
        found = load_run(store, settings.cache_dir, run.run_id)
        for line in write_reports(found, settings):
            write(line)

    return _with_store(settings, report)


def run_compare(config: pytest.Config, write: Write) -> int:
    """Compare two runs of the store; the `--vlm-compare` command."""
    from pytest_vlmeval.reports.comparison import compare_alike
    from pytest_vlmeval.reports.record import load_run
    from pytest_vlmeval.reports.terminal import write_reports

    settings = get_settings(config)
    names = config.getoption("--vlm-compare")
    if len(names) != 2:
        given = f" ({', '.join(names)})" if names else ""
        raise pytest.UsageError(
            f"--vlm-compare takes two runs, A and B, and {len(names)} are given"
            f"{given}. Give both; pytest --vlm-runs lists the runs in the store."
        )

    def report(store: Store) -> None:
        old, new = (
            load_run(store, settings.cache_dir, store.history.find(name).run_id)
            for name in names
        )
        found, lines = compare_alike(new, old)
        for line in [*lines, *write_reports(found, settings)]:
            write(line)

    return _with_store(settings, report)


def _with_store(settings: Settings, use: Callable[[Store], None]) -> int:
    """Use the store, which has to be there."""
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.run.store.database import Location

    if not Location(settings.work_dir, settings.store).may_exist:
        raise pytest.UsageError(
            f"There is no run store in {settings.store_name}. Run a benchmark first, "
            "or name the folder of another store with --vlm-work-dir."
        )
    try:
        store = Store(settings.work_dir, settings.store)
        try:
            use(store)
        finally:
            store.close()
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    return int(pytest.ExitCode.OK)


Command = Callable[[pytest.Config, Callable[[str], None]], int]


def find_command(config: pytest.Config) -> Command | None:
    """Return what to run instead of tests, if anything."""
    if config.getoption("--vlm-doctor"):
        return run_doctor
    if config.getoption("--vlm-setup"):
        if not selects_for_setup(config):
            return run_setup
        run_without_workers(config)
        return None
    if config.getoption("--vlm-list") is not None:
        return run_list
    if config.getoption("--vlm-list-models"):
        return run_list_models
    if config.getoption("--vlm-runs"):
        return run_runs
    if config.getoption("--vlm-compare") is not None:
        return run_compare
    if _is_mode_given(config) and get_settings(config).mode == "report":
        return run_report
    return None


def _is_mode_given(config: pytest.Config) -> bool:
    """Look for the mode; the first look at any option is what reads a task file."""
    try:
        return is_given("mode", config)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None


def run_doctor(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Examine all that a run needs; the `--vlm-doctor` command."""
    from pytest_vlmeval.suite.doctor import examine, from_error, write_findings

    try:
        settings = get_settings(config)
    except pytest.UsageError as error:
        findings = [from_error("options", error)]
    else:
        for remark in settings.remarks:
            write(f"vlmeval: {remark}")
        findings = list(examine(settings))
    colour = sys.stdout.isatty()
    # What goes to a file is not wrapped, so that it can be searched and copied.
    width = shutil.get_terminal_size().columns if colour else 1_000
    for line in write_findings(findings, width, colour=colour):
        write(line)
    failed = any(finding.state == "error" for finding in findings)
    return int(pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK)


def run_setup(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Build the sandbox environment and say where it is; the `--vlm-setup` command.

    Where datasets are selected, a session does, with what they need.
    """
    from pytest_vlmeval.datasets.library import Library

    try:
        (python,) = Library(get_settings(config), write).set_up([])
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    write(f"sandbox environment ready: {python}")
    return int(pytest.ExitCode.OK)


def run_list(config: pytest.Config, write: Callable[[str], None]) -> int:
    """List the datasets; the `--vlm-list` command."""
    from pytest_vlmeval.datasets.catalog import demo_datasets
    from pytest_vlmeval.datasets.library import Library

    settings = get_settings(config)
    words = parse_names(config.getoption("--vlm-list"))
    try:
        # What is written may be JSON, so anything else goes elsewhere.
        library = Library(settings, _write_aside)
        infos = [*library.catalog.values(), *demo_datasets().values()]
        write(list_datasets(infos, words, Places(settings.data_root, settings.hubs)))
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    return int(pytest.ExitCode.OK)


def run_list_models(config: pytest.Config, write: Callable[[str], None]) -> int:
    """List the local models; the `--vlm-list-models` command."""
    from pytest_vlmeval.datasets.catalog import locate_package
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.local import read_models

    settings = get_settings(config)
    try:
        python = Library(settings, _write_aside).environment.python
        models = read_models(locate_package(python, settings.cache_dir).folder)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    for name, model in models.items():
        path = model.arguments.get("model_path", "")
        write(f"{name:40} {model.class_name:24} {path}".rstrip())
    return int(pytest.ExitCode.OK)


def _write_aside(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")


WIDTH = 120
JSON = "json"
COLUMNS = tuple("name family modality kind judge scored size disk source".split())
# A name is never cut, so that it can be copied; a longer one has a line of its own.
LONGEST_NAME = 32
LONGEST_FAMILY = 14


class Places(NamedTuple):
    """Where datasets are looked for on disk: the files, and the hubs' caches.

    `known` are all that there are, by name: those of a collection among them.
    """

    data_root: Path
    hubs: Sequence[Hub] = ()
    known: Mapping[str, DatasetInfo] = {}


def list_datasets(
    infos: Iterable[DatasetInfo], words: Sequence[str], places: Places
) -> str:
    """Return the datasets that all `words` fit, as a table; as JSON if one is `json`.

    A word fits if it is part of the name, family, kind or modality, in any case.
    Raises VlmEvalError when none fits.
    """
    infos = list(infos)
    places = places._replace(known={info.name: info for info in infos})
    filters = [word.lower() for word in words if word.lower() != JSON]
    found = [info for info in infos if _fits(info, filters)]
    if len(filters) < len(words):
        return json.dumps([_entry(info, places) for info in found], indent=1)
    if not found:
        raise VlmEvalError(
            f"--vlm-list={','.join(words)}: no dataset has all of these words in its "
            "name, family, kind or modality. Kinds are multiple_choice, yes_no, vqa, "
            "caption and other; modalities image, video and text."
        )
    return _table([_row(info, places) for info in found])


def _fits(info: DatasetInfo, filters: Sequence[str]) -> bool:
    texts = [info.name, info.family, info.kind, info.modality]
    return all(any(word in text.lower() for text in texts) for word in filters)


def _size_on_disk(info: DatasetInfo, data_root: Path) -> int | None:
    path = data_path(info, data_root)
    return path.stat().st_size if path.is_file() else None


def _entry(info: DatasetInfo, places: Places) -> dict[str, Any]:
    size = _size_on_disk(info, places.data_root)
    return {
        "name": info.name,
        "family": info.family,
        "modality": info.modality,
        "kind": info.kind,
        "judge": info.judge,
        "has_references": info.has_references,
        "scored": how_scored(info, places.known),
        "not_scored_because": _why_unscored(info, places.known),
        "size_bytes": info.size_bytes if size is None else size,
        "on_disk": _is_on_disk(info, size, places.hubs),
        "source": info.source or None,
        "url": info.url,
        "md5": info.md5,
        "versions": [asdict(each) for each in info.versions],
        "homepage": info.homepage,
        "licence": info.licence,
    }


def _is_on_disk(
    info: DatasetInfo, size: int | None, hubs: Sequence[Hub]
) -> bool | None:
    """Return whether a dataset's files are there; None if it is not known which."""
    if not info.repository:
        unknown = info.modality == "video" or not (info.url or info.path)
        return None if unknown else size is not None
    return is_cached(info.repository, hubs) and (info.url is None or size is not None)


def _row(info: DatasetInfo, places: Places) -> tuple[str, ...]:
    entry = _entry(info, places)
    size = entry["size_bytes"]
    return (
        info.name,
        _cut(info.family, LONGEST_FAMILY),
        info.modality,
        info.kind,
        info.judge or "?",
        how_scored(info, places.known),
        "?" if size is None else size_text(size),
        _yes_no(entry["on_disk"]),
        info.source or "?",
    )


def how_scored(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str:
    """Say in a word or two whether there will be a score: yes, or what it lacks.

    Of a collection, what the first of its datasets says that lacks something.
    """
    members = [known[name] for name in info.members if name in known]
    if members:
        found = [how_scored(each, known) for each in members]
        return next((each for each in found if each != "yes"), "yes")
    if not is_scored(info):
        return "not yet"
    if info.has_references is False:
        return "no refs"
    return "by judge" if info.judge == "required" else "yes"


def _why_unscored(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str | None:
    members = [known[name] for name in info.members if name in known]
    reasons = map(foresee, members or [info])
    return next((why for why in reasons if why is not None), None)


def _yes_no(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    widths[0] = min(widths[0], LONGEST_NAME)
    widths[-1] = WIDTH - sum(widths[:-1]) - 2 * len(widths[:-1])
    lines = []
    for name, *cells in (COLUMNS, *rows):
        if len(name) > LONGEST_NAME:
            lines.append(name)
            name = ""
        padded = [
            _cut(text, width).ljust(width)
            for text, width in zip((name, *cells), widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    on_disk = sum(row[COLUMNS.index("disk")] == "yes" for row in rows)
    noun = "dataset" if len(rows) == 1 else "datasets"
    lines += [
        "",
        f"{len(rows)} {noun}, {on_disk} on disk. scored: by judge: with --vlm-judge "
        "only; no refs: no reference answers; not yet:",
        "no scoring here. Those two are only asked with --vlm-mode=infer. ?: unknown "
        "before a download. --vlm-list=json has more.",
    ]
    return "\n".join(lines)
