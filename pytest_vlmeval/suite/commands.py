"""What runs instead of tests: the doctor, a set-up, a listing, reports of a run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from pytest_vlmeval.datasets.catalog import CORE
from pytest_vlmeval.datasets.download import data_path, size_text
from pytest_vlmeval.datasets.hub import is_cached
from pytest_vlmeval.datasets.unscored import foresee, is_refused, is_scored
from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.records import DatasetInfo, Hub
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.settings.option import parse_names
from pytest_vlmeval.suite.installed import run_init
from pytest_vlmeval.suite.selection import plan_session
from pytest_vlmeval.suite.session import (
    FORECAST_KEY,
    SCREEN_KEY,
    get_run,
    get_settings,
    is_given,
    names_paths,
    selects_tests,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.packages import Added
    from pytest_vlmeval.models.pool import Endpoint
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.settings import Settings

Write = Callable[[str], None]
Command = Callable[[pytest.Config, Write], int | None]


def run_command(config: pytest.Config, write: Write) -> int | None:
    """Run what stands in for tests; None if a session does it.

    Raises `VlmEvalError` for what the user can fix.
    """
    for option, command in COMMANDS.items():
        if config.getoption(option) not in (None, False):
            return command(config, write)
    return run_report(config, write)


def run_runs(config: pytest.Config, write: Write) -> int:
    """List the runs of the store; the `--vlm-runs` command."""
    from pytest_vlmeval.reports.comparison import list_runs

    with closing(_find_store(get_settings(config))) as store:
        write(list_runs(store))
    return int(pytest.ExitCode.OK)


def run_report(config: pytest.Config, write: Write) -> int:
    """Write the reports of a stored run; the `--vlm-mode=report` command."""
    from pytest_vlmeval.reports.record import load_run
    from pytest_vlmeval.reports.terminal import write_reports

    settings = get_settings(config)
    if settings.report is None and settings.export is None:
        raise VlmEvalError(
            "--vlm-mode=report writes the reports of a stored run, and none is named: "
            "give --vlm-report=FILE.html, --vlm-export=DIR, or both."
        )
    with closing(_find_store(settings)) as store:
        run = store.find_run(settings.run, settings.model)
        found = load_run(store, settings.cache_dir, run.run_id)
        for line in write_reports(found, settings):
            write(line)
    return int(pytest.ExitCode.OK)


def run_compare(config: pytest.Config, write: Write) -> int:
    """Compare two runs of the store; the `--vlm-compare` command."""
    from pytest_vlmeval.reports.comparison import compare_alike
    from pytest_vlmeval.reports.record import load_run
    from pytest_vlmeval.reports.terminal import write_reports

    settings = get_settings(config)
    names = config.getoption("--vlm-compare")
    if len(names) != 2:
        raise VlmEvalError(
            "--vlm-compare takes two runs, A and B, and was given "
            f"{', '.join(names) or 'none'}. Name two of those that pytest --vlm-runs "
            "lists, and nothing behind them."
        )
    with closing(_find_store(settings)) as store:
        old, new = (
            load_run(store, settings.cache_dir, store.find_run(name).run_id)
            for name in names
        )
        found, lines = compare_alike(new, old)
        for line in [*lines, *write_reports(found, settings)]:
            write(line)
    return int(pytest.ExitCode.OK)


def _find_store(settings: Settings) -> Store:
    """Open the store, which has to be there."""
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.run.store.database import Location

    if not Location(settings.work_dir, settings.store).may_exist:
        raise VlmEvalError(
            f"There is no run store in {settings.store_name}. Run a benchmark first, "
            "or name the folder of another store with --vlm-work-dir."
        )
    return Store(settings.work_dir, settings.store)


def run_setup(config: pytest.Config, write: Write) -> int | None:
    """Build the sandbox environment and say where it is; the `--vlm-setup` command.

    If datasets are selected, a session does, with what they need: those of the
    installed suite, if neither a path is given nor tests are here.
    """
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.suite.installed import SUITE, has_tests

    if selects_tests(config) or is_given("data", config):
        if not names_paths(config) and SUITE.is_dir() and not has_tests(config):
            config.args = [str(SUITE)]
        # In one process, whatever xdist is to start.
        for name, value in (("numprocesses", None), ("dist", "no"), ("tx", [])):
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        return None
    (python,) = Library(get_settings(config), write).set_up([])
    write(f"sandbox environment ready: {python}")
    return int(pytest.ExitCode.OK)


def run_setup_of_all(config: pytest.Config, write: Write) -> int:
    """Build the environments that any dataset needs; the `--vlm-setup=all` command."""
    from pytest_vlmeval.datasets.library import Library

    library = Library(get_settings(config), write)
    for python, datasets in library.set_up(library.catalog).items():
        noun = "dataset" if len(datasets) == 1 else "datasets"
        count = f"{len(datasets)} {noun}, {datasets[0]} among them"
        write(f"sandbox environment ready: {python} ({count})")
    return int(pytest.ExitCode.OK)


def set_up(session: pytest.Session) -> None:
    """Build the environments that datasets need: `--vlm-setup` with some selected.

    Those of the tests that paths, -m or -k select; else those that `--vlm-data` names.
    """
    config, run = session.config, get_run(session.config)
    if selects_tests(config):
        run.check_names()
        forecast = config.stash[FORECAST_KEY]
        names = [*forecast.names, *forecast.left_out]
    else:
        names = run.choice.named()
    ready = run.library.set_up(names)
    for python, datasets in ready.items():
        told = f" ({', '.join(datasets)})" if datasets else ""
        line = f"sandbox environment ready: {python}{told}"
        config.stash[SCREEN_KEY].announce(line)
    session.testscollected = len(ready)


def download(session: pytest.Session) -> None:
    """Download what the tests need: `--vlm-download-only`.

    Each dataset that fails counts as a test.
    """
    run, announce = get_run(session.config), session.config.stash[SCREEN_KEY].announce
    names = list(session.config.stash[FORECAST_KEY].names)
    run.check_names()
    plan = plan_session(run, names)
    if plan.downloads:
        announce(plan.summary())
    session.testscollected = len(names)
    for name in names:
        try:
            announce(f"{name}: {run.library.fetch(name)}")
        except VlmEvalError as error:
            announce(str(error))
            session.testsfailed += 1


def run_list(config: pytest.Config, write: Write) -> int:
    """List the datasets; the `--vlm-list` command."""
    from pytest_vlmeval.datasets.catalog import demo_datasets
    from pytest_vlmeval.datasets.library import Library

    settings = get_settings(config)
    words = parse_names(config.getoption("--vlm-list"))
    # What is written may be JSON, so anything else goes elsewhere.
    library = Library(settings, _write_aside)
    infos = [*library.catalog.values(), *demo_datasets().values()]
    places = Places(settings.data_root, settings.hubs)
    write(list_datasets(infos, words, places, library.list_added()))
    return int(pytest.ExitCode.OK)


def run_list_models(config: pytest.Config, write: Write) -> int:
    """List the local models; the `--vlm-list-models` command."""
    from pytest_vlmeval.datasets.catalog import locate_package
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.local import read_models

    settings = get_settings(config)
    python = Library(settings, _write_aside).environment.python
    models = read_models(locate_package(python, settings.cache_dir).folder)
    for name, model in models.items():
        path = model.arguments.get("model_path", "")
        write(f"{name:40} {model.class_name:24} {path}".rstrip())
    return int(pytest.ExitCode.OK)


def _write_aside(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")


JSON, PRESETS = "json", "presets"
COLUMNS = tuple("name modality kind judge scored size disk presets".split())
# A name is never cut, so that it can be copied; a longer one has a line of its own.
LONGEST_NAME = 28


class Places(NamedTuple):
    """Where datasets are looked for on disk: the files, and the hubs' caches.

    `known` are all that there are, by name: those of a collection among them.
    """

    data_root: Path
    hubs: Sequence[Hub] = ()
    known: Mapping[str, DatasetInfo] = {}


def list_datasets(
    infos: Iterable[DatasetInfo],
    words: Sequence[str],
    places: Places,
    added: Mapping[Added, str],
) -> str:
    """Return the datasets that all `words` fit, as a table; as JSON if one is `json`.

    A word fits if it is part of the name, family, kind or modality, in any case, and of
    those that packages have `added`, mapped to why they cannot be had, of the name or
    the package. In the table, the presets of a dataset are counted beside it, unless a
    word is `presets`. Raises VlmEvalError when none fits.
    """
    infos = list(infos)
    places = places._replace(known={info.name: info for info in infos})
    lowered = [word.lower() for word in words]
    filters = [word for word in lowered if word not in (JSON, PRESETS)]
    found = [info for info in infos if _fits(info, filters)]
    more = {
        each: error
        for each, error in added.items()
        if all(word in f"{each.name} {each.package}".lower() for word in filters)
    }
    if JSON in lowered:
        entries = [_entry(info, places) for info in found]
        entries += [_added_entry(*each, places) for each in more.items()]
        return json.dumps(entries, indent=1)
    if more and not found:
        return _list_added(more)
    if not found:
        raise VlmEvalError(
            f"--vlm-list={','.join(words)}: no dataset has all of these words in its "
            "name, family, kind or modality. Kinds are multiple_choice, yes_no, vqa, "
            "caption and other; modalities image, video and text."
        )
    presets = Counter(_preset_of(info, places.known) for info in found)
    names = {info.name for info in found}
    shown = [
        info
        for info in found
        if PRESETS in lowered or _preset_of(info, places.known) not in names
    ]
    table = _table(shown, presets, places)
    return f"{table}\n\n{_list_added(more)}" if more else table


def _list_added(added: Mapping[Added, str]) -> str:
    """Return a line for each dataset of a package, with why it cannot be loaded."""
    width = max(len(each.name) for each in added)
    lines = ["Added by installed packages:"]
    for each, error in added.items():
        lines.append(f"  {each.name:{width}}  {error or each.package}")
    return "\n".join(lines)


def _added_entry(added: Added, error: str, places: Places) -> dict[str, Any]:
    """Return what is known of a dataset of a package before its rows are read."""
    info = DatasetInfo(
        name=added.name,
        class_name="",
        module="",
        kind="other",
        source=f"package {added.package}",
    )
    return {
        **_entry(info, places),
        "modality": None,
        "kind": None,
        "scored": "no" if error else "yes",
        "not_scored_because": error or None,
    }


def _preset_of(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str | None:
    """Return the dataset that a name is a preset of; None if it is none."""
    dataset = info.settings.get("dataset")
    is_preset = isinstance(dataset, str) and dataset in known and dataset != info.name
    return str(dataset) if is_preset else None


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
        "core": info.name in CORE,
        "preset_of": _preset_of(info, places.known),
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


def _row(info: DatasetInfo, presets: int, places: Places) -> tuple[str, ...]:
    entry = _entry(info, places)
    size = entry["size_bytes"]
    return (
        f"{'*' if entry['core'] else ' '} {info.name}",
        info.modality,
        info.kind,
        info.judge or "?",
        how_scored(info, places.known),
        "?" if size is None else size_text(size),
        _yes_no(entry["on_disk"]),
        f"+{presets}" if presets else "",
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
        return "refused" if is_refused(info) else "not yet"
    if info.has_references is False:
        return "no refs"
    return "by judge" if info.judge == "required" else "yes"


def _why_unscored(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str | None:
    members = [known[name] for name in info.members if name in known]
    reasons = map(foresee, members or [info])
    return next((why for why in reasons if why is not None), None)


def _yes_no(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def _table(
    infos: Sequence[DatasetInfo], presets: Mapping[str | None, int], places: Places
) -> str:
    """Return a row for each dataset, those of a family together below its name."""
    rows = {info.name: _row(info, presets.get(info.name, 0), places) for info in infos}
    headings = (f"  {COLUMNS[0]}", *COLUMNS[1:])
    widths = [
        max(map(len, column)) for column in zip(headings, *rows.values(), strict=True)
    ]
    widths[0] = min(widths[0], LONGEST_NAME + 2)
    lines = _write_row(headings, widths)
    families: dict[str, list[str]] = {}
    for info in infos:
        families.setdefault(info.family, []).append(info.name)
    # One that is alone in its family is found by its own name.
    titled = [
        (family if len(names) > 1 else names[0], names)
        for family, names in families.items()
    ]
    for title, names in sorted(titled, key=lambda each: each[0].casefold()):
        # Blank lines show where a family ends.
        if len(names) > 1:
            lines += ["", title] if lines[-1] else [title]
        for name in names:
            lines += _write_row(rows[name], widths)
        if len(names) > 1:
            lines.append("")
    on_disk = sum(row[COLUMNS.index("disk")] == "yes" for row in rows.values())
    noun = "dataset" if len(rows) == 1 else "datasets"
    lines += [
        *([""] if lines[-1] else []),
        f"{len(rows)} {noun}, {on_disk} on disk. *: one of the core eight (-m core). "
        "presets: names that fix",
        "frames and more, as Video-MME_8frame does; --vlm-list=presets lists them too. "
        "scored: by judge:",
        "with --vlm-judge only; no refs: no reference answers; refused, not yet: no "
        "scoring here. Those",
        "are only asked with --vlm-mode=infer, and --vlm-list=json says why. ?: "
        "unknown before a download.",
    ]
    return "\n".join(lines)


def _write_row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return a row of a table, a name that is too long on a line of its own."""
    name, *others = cells
    lines = [name] if len(name) > widths[0] else []
    padded = [
        text.ljust(width)
        for text, width in zip(("" if lines else name, *others), widths, strict=True)
    ]
    return [*lines, "  ".join(padded).rstrip()]


def run_doctor(config: pytest.Config, write: Write) -> int:
    """Examine all that a run needs; the `--vlm-doctor` command."""
    try:
        settings = get_settings(config)
    except pytest.UsageError as error:
        found = [_from_error("options", error)]
    else:
        for remark in settings.remarks:
            write(f"vlmeval: {remark}")
        found = list(examine(settings))
    colour = sys.stdout.isatty()
    # What goes to a file is not wrapped, so that it can be searched and copied.
    width = shutil.get_terminal_size().columns if colour else 1_000
    for line in write_diagnoses(found, width, colour=colour):
        write(line)
    failed = any(each.state == "error" for each in found)
    return int(pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK)


class Diagnosis(NamedTuple):
    """Something that the doctor looked at: how it is, and what to do about it.

    A `note` is no error, but worth to know; `remedy` is "" where nothing is to do.
    """

    about: str
    state: Literal["ok", "note", "error"]
    text: str
    remedy: str = ""


def _from_error(about: str, error: BaseException) -> Diagnosis:
    """Make a diagnosis of an error, whose text says what to do."""
    return Diagnosis(about, "error", str(error))


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """Yield the diagnoses; nothing is changed, and no sample asked."""
    names = ("pytest-vlmeval", "pytest", "openai", "pandas")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    yield Diagnosis("versions", "ok", f"Python {platform.python_version()}, {found}")
    yield from asyncio.run(examine_model(settings))
    yield from asyncio.run(examine_judges(settings))
    yield from examine_folders(settings)
    yield examine_gpus(settings)
    yield examine_sandbox(settings)
    yield examine_store(settings)


async def examine_model(settings: Settings) -> list[Diagnosis]:
    """Examine the model: each endpoint by itself, then what it takes."""
    from pytest_vlmeval.models.open import backend_of, create_pool
    from pytest_vlmeval.models.pool import Concurrency, Learned

    if settings.model is None:
        return [Diagnosis("model", "note", NO_MODEL)]
    if settings.serving.model:
        return [_find_command("model", settings.serving.model)]
    # From here; what the nodes of a cluster have is seen when replicas start there.
    settings = replace(settings, cluster=None)
    found: list[Diagnosis] = []
    notes: list[str] = []
    one, learned = Concurrency(1, adaptive=False), Learned(None, notes.append)
    try:
        pool = create_pool(settings, one, learned=learned)
    except VlmEvalError as error:
        return [_from_error("model", error)]
    try:
        for endpoint in pool.endpoints:
            found.append(await _check(endpoint, "model", str(settings.model)))
            if found[-1].state == "ok" and backend_of(settings).is_served:
                found += await _try_media(endpoint, settings)
    finally:
        await pool.close()
    return found + [Diagnosis("model", "note", note) for note in notes]


async def _check(endpoint: Endpoint, about: str, name: str) -> Diagnosis:
    try:
        await endpoint.client.check()
    except VlmEvalError as error:
        return _from_error(about, error)
    where = endpoint.name
    text = f"{name} is served at {where}" if "://" in where else f"{name}, here"
    return Diagnosis(about, "ok", text)


async def _try_media(endpoint: Endpoint, settings: Settings) -> list[Diagnosis]:
    from pytest_vlmeval.models.check import NAMES, REMEDIES, Capability, try_media

    wanted: set[Capability] = {"image", "images"}
    if settings.video_url:
        wanted.add("video")
    try:
        tried = await try_media(endpoint.client, wanted, settings.prompting)
    except VlmEvalError as error:
        return [_from_error("media", error)]
    found = []
    for it in tried:
        name, what = endpoint.name, NAMES[it.capability]
        remedy = REMEDIES[it.capability]
        refused = f"{name} refuses {what}: {it.words}"
        if it.state == "accepted":
            found.append(Diagnosis("media", "ok", f"{name} takes {what}"))
        elif it.state == "unknown":
            text = f"{name} gave no answer to {what}: {it.words}"
            remedy = "See the server's log; a run may end there too."
            found.append(Diagnosis("media", "error", text, remedy))
        elif it.capability == "images":
            remedy += " Datasets with one image in a question run all the same."
            found.append(Diagnosis("media", "note", refused, remedy))
        else:
            found.append(Diagnosis("media", "error", refused, remedy))
    return found


async def examine_judges(settings: Settings) -> list[Diagnosis]:
    """Check whether each judge is served."""
    from pytest_vlmeval.models.open import create_judge_pool
    from pytest_vlmeval.models.pool import Concurrency, Learned

    if settings.serving.judge:
        return [_find_command("judge", settings.serving.judge)]
    if not settings.judges:
        return [Diagnosis("judge", "ok", settings.judging)]
    found = []
    notes: list[str] = []
    one, learned = Concurrency(1, adaptive=False), Learned(None, notes.append)
    for judge in settings.judges:
        try:
            pool = create_judge_pool(settings, judge, one, learned=learned)
        except VlmEvalError as error:
            found.append(_from_error("judge", error))
            continue
        try:
            checks = (_check(each, "judge", judge.name) for each in pool.endpoints)
            found += await asyncio.gather(*checks)
        finally:
            await pool.close()
    return found + [Diagnosis("judge", "note", note) for note in notes]


def _find_command(about: str, words: Sequence[str]) -> Diagnosis:
    """Look for the program that the run is to start a server with."""
    program = shutil.which(words[0])
    if program is not None:
        return Diagnosis(about, "ok", f"{program} is started for the run")
    text = f"{words[0]} is to be started for the run, and is not found"
    return Diagnosis(about, "error", text, "Install it, or give its path.")


# What a first run takes: the sandbox 0.4 GB, its download as much, and a dataset.
LEAST_BYTES = 1_000_000_000
SETUP = "pytest --vlm-setup"


def examine_folders(settings: Settings) -> Iterator[Diagnosis]:
    """Check whether each folder can be written, and has room."""
    for about, folder, remedy in (
        ("data root", settings.data_root, "point LMUData at another folder"),
        ("cache", settings.cache_dir, "give another with --vlm-cache-dir"),
        ("work dir", settings.work_dir, "give another with --vlm-work-dir"),
    ):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            remedy = f"Make {there} a folder that you may write to, or {remedy}."
            yield Diagnosis(about, "error", f"{folder} cannot be written", remedy)
            continue
        free = shutil.disk_usage(there).free
        made = "" if folder.exists() else ", made when first needed"
        text = f"{folder}{made}, {free / 1e9:.1f} GB free"
        if free >= LEAST_BYTES:
            yield Diagnosis(about, "ok", text)
        else:
            least = f"A first run takes {LEAST_BYTES / 1e9:.0f} GB"
            yield Diagnosis(about, "error", text, f"{least}: free some, or {remedy}.")


def examine_gpus(settings: Settings) -> Diagnosis:
    """Name the GPUs; they matter only to models that run on this machine."""
    from pytest_vlmeval.models.local import find_devices
    from pytest_vlmeval.models.open import backend_of

    devices = find_devices(settings.local.visible_devices)
    if devices:
        return Diagnosis("GPU", "ok", f"{len(devices)} ({', '.join(devices)})")
    if backend_of(settings).is_ours or settings.serving.model:
        return Diagnosis(
            "GPU",
            "note",
            "none was found, so that the model runs on the processor",
            "Is nvidia-smi there, and CUDA_VISIBLE_DEVICES not empty?",
        )
    return Diagnosis("GPU", "ok", "none here, and this model needs none here")


def examine_sandbox(settings: Settings) -> Diagnosis:
    """Start ms-vlmeval's environment, if it is built."""
    from pytest_vlmeval.sandbox.calls import describe_sandbox
    from pytest_vlmeval.sandbox.environment import ensure_environment
    from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault

    try:
        environment = ensure_environment(
            settings.cache_dir,
            python=settings.sandbox_python,
            offline=True,
            announce=lambda line: None,
        )
    except VlmEvalError as error:
        if settings.sandbox_python is not None or settings.offline:
            return _from_error("sandbox", error)
        text = "not built yet; the first run does, in about a minute"
        return Diagnosis("sandbox", "note", text, f"Build it ahead: {SETUP}")
    try:
        with closing(Sandbox(environment.python)) as sandbox:
            found = describe_sandbox(sandbox)
    except (VlmEvalError, SandboxFault) as error:
        remedy = f"Remove {environment.python.parent.parent} and run {SETUP}."
        return Diagnosis("sandbox", "error", str(error), remedy)
    text = (
        f"ms-vlmeval {found.ms_vlmeval}, Python {found.python}, pandas {found.pandas}"
    )
    return Diagnosis("sandbox", "ok", text)


def examine_store(settings: Settings) -> Diagnosis:
    """Open the run store, if there is one; none is made."""
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.run.store.database import Location

    location = Location(settings.work_dir, settings.store)
    if not location.may_exist:
        text = f"none yet; the first run makes {location.file}"
        return Diagnosis("store", "ok", text)
    try:
        with closing(Store(settings.work_dir, settings.store)) as store:
            count = len(store.runs())
    except VlmEvalError as error:
        return _from_error("store", error)
    noun = "run" if count == 1 else "runs"
    return Diagnosis("store", "ok", f"{location.file or location}, {count} {noun}")


STYLES = {"ok": "green", "note": "yellow", "error": "bold red"}


def write_diagnoses(
    found: Sequence[Diagnosis], width: int, *, colour: bool
) -> list[str]:
    """Return the lines of a table, `width` columns wide, and what it comes to."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in found:
        text = Text(each.text)
        if each.remedy:
            text.append(f"\n{each.remedy}", style="bold")
        table.add_row(Text(each.state, STYLES[each.state]), Text(each.about), text)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    count = sum(each.state == "error" for each in found)
    noun = "error" if count == 1 else "errors"
    return [*lines, "", f"{count} {noun} to fix." if count else "All is well."]


COMMANDS: Mapping[str, Command] = {
    "--vlm-init": run_init,
    "--vlm-doctor": run_doctor,
    "--vlm-setup": run_setup,
    "--vlm-setup=all": run_setup_of_all,
    "--vlm-list": run_list,
    "--vlm-list-models": run_list_models,
    "--vlm-runs": run_runs,
    "--vlm-compare": run_compare,
}
