"""Every dataset a run may ask for, found, downloaded and prepared when first needed."""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pytest_vlmeval.datasets.catalog import (
    BARE_CLASS,
    demo_datasets,
    find_table,
    load_catalog,
    locate_package,
    unknown_dataset,
)
from pytest_vlmeval.datasets.download import (
    GB,
    FileAccess,
    data_path,
    is_url,
    open_url,
    size_text,
    source_of,
)
from pytest_vlmeval.datasets.hub import fetch_files, is_cached, repository_size
from pytest_vlmeval.datasets.own import as_frame, describe_own, write_frame
from pytest_vlmeval.datasets.packages import Packages
from pytest_vlmeval.datasets.prepare import (
    IndexRow,
    Prompts,
    prepare_dataset,
    read_index,
    read_prompts,
    read_shown,
    read_splits,
    show_videos,
)
from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.models.client import Request
from pytest_vlmeval.records import (
    VLMEVALKIT_BASE,
    VLMEVALKIT_COMMIT,
    DatasetInfo,
    PreparedDataset,
)
from pytest_vlmeval.sandbox.calls import describe_sandbox, digest_in_sandbox
from pytest_vlmeval.sandbox.environment import (
    HUB,
    LIGHT,
    SandboxEnvironment,
    addons_for,
    digest_of_all,
    ensure_environment,
)
from pytest_vlmeval.sandbox.inside.families import with_adapter
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault, opened_sandbox
from pytest_vlmeval.settings.option import dataset_name, is_repository

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.own_questions import OwnQuestions
    from pytest_vlmeval.datasets.packages import Added, Dataset
    from pytest_vlmeval.records import Hub
    from pytest_vlmeval.settings import Settings

Found = TypeVar("Found")

# A preparation that takes longer says so this often.
ANNOUNCE_S = 5.0


def _try_sandbox(python: Path) -> None:
    with opened_sandbox(python) as sandbox:
        describe_sandbox(sandbox)


class Library:
    """Finds and prepares datasets, each once in a process; errors are remembered."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._worked: set[Path] = set()
        self._prepared: dict[str, PreparedDataset | VlmEvalError] = {}
        self._index: dict[str, Sequence[IndexRow]] = {}
        self._prompts: dict[str, Prompts] = {}
        self._shown: dict[str, Sequence[frozenset[int]]] = {}
        self._own: dict[str, str] = {}
        self._columns: dict[str, Mapping[str, str]] = {}
        self._questions: dict[str, OwnQuestions] = {}
        self._clash: tuple[str, str] | None = None
        self._described: dict[str, DatasetInfo | VlmEvalError] = {}
        self._lock = threading.Lock()
        # By add-ons, of which most datasets need none.
        self.packages = Packages()
        self._added: dict[str, Dataset | VlmEvalError] = {}
        self._environments: dict[frozenset[str], SandboxEnvironment] = {}
        self._sandboxes: dict[tuple[Path, bool], Sandbox] = {}
        self._sandbox_lock = threading.RLock()

    @property
    def environment(self) -> SandboxEnvironment:
        """The Python environment that holds ms-vlmeval, built if need be."""
        return self._environment_with(LIGHT)

    def sandbox_for(self, name: str) -> Sandbox:
        """Return the helper process for a dataset, with the add-ons it needs.

        It is started by its first call, or ahead by its `start()`. `VlmEvalError`
        where its environment cannot be built.
        """
        info = self.find(name)
        return self._sandbox_with(
            addons_for(info), scored=with_adapter(info.class_name) is not None
        )

    def _sandbox_with(self, addons: frozenset[str], *, scored: bool) -> Sandbox:
        with self._sandbox_lock:
            # With the user's own interpreter it is the same for all. What is not
            # scored is imported without all it needs, away from what is.
            python = self._environment_with(addons).python
            key = python, scored
            if key not in self._sandboxes:
                self._sandboxes[key] = Sandbox(python)
            return self._sandboxes[key]

    def set_up(self, names: Iterable[str]) -> dict[Path, list[str]]:
        """Build what datasets need; return the interpreters, and for which they are.

        Raises `VlmEvalError` where one cannot be built, or does not work.
        """
        found: dict[Path, list[str]] = {self._working(LIGHT): []}
        for name in names:
            python = self._working(addons_for(self.find(name)))
            found.setdefault(python, []).append(name)
        return found

    def _working(self, addons: frozenset[str]) -> Path:
        """Return an environment's interpreter, built anew if it does not work."""
        python = self._environment_with(addons).python
        if python in self._worked:
            return python
        try:
            _try_sandbox(python)
        except VlmEvalError as error:
            folder = python.parent.parent
            ours = folder.parent == self._settings.cache_dir / "sandbox"
            if not ours or self._settings.offline:
                raise
            self._announce(f"{error} It is built anew.")
            with self._sandbox_lock:
                shutil.rmtree(folder)
                del self._environments[addons]
            python = self._environment_with(addons).python
            _try_sandbox(python)
        self._worked.add(python)
        return python

    def _environment_with(self, addons: frozenset[str]) -> SandboxEnvironment:
        with self._sandbox_lock:
            if addons not in self._environments:
                self._environments[addons] = ensure_environment(
                    self._settings.cache_dir,
                    python=self._settings.sandbox_python,
                    offline=self._settings.offline,
                    announce=self._announce,
                    addons=addons,
                )
            return self._environments[addons]

    @cached_property
    def catalog(self) -> Mapping[str, DatasetInfo]:
        """Every dataset that ms-vlmeval names."""
        return load_catalog(self.environment, self._settings.cache_dir)

    @property
    def scorer(self) -> str:
        """What scores: the sandbox, its add-ons, the method; a score adds its judge.

        Raises `VlmEvalError` for a method that this ms-vlmeval does not have.
        """
        fingerprint = self.environment.fingerprint
        scoring: str = self._settings.scoring or "default"
        if scoring == "vlmevalkit":
            scoring += f"@{VLMEVALKIT_COMMIT[:12]}"
            python = self.environment.python
            version = locate_package(python, self._settings.cache_dir).version
            if version != VLMEVALKIT_BASE:
                raise VlmEvalError(
                    "--vlm-scoring=vlmevalkit is known for ms-vlmeval "
                    f"{VLMEVALKIT_BASE} only, and {python} has {version}. Leave out "
                    "--vlm-sandbox-python, install that version there, or give "
                    "--vlm-scoring=published."
                )
        return f"{fingerprint}:{digest_of_all()}:{scoring}"

    def names(self) -> list[str]:
        """Return every name that a dataset may be given."""
        added = dict.fromkeys(each.name for each in self.packages.all)
        return [*demo_datasets(), *self.catalog, *added, *self._own]

    def find(self, name: str) -> DatasetInfo:
        """Return what is known of a dataset; `VlmEvalError` for an unknown name."""
        if name in self._own:
            if name not in self._described:
                self._described[name] = self._kept(self._describe_own, name)
            return _given(self._described[name])
        bundled = demo_datasets()
        found = bundled.get(name) or self.catalog.get(name)
        added = self.packages.find(name, known=found is not None)
        if added is not None:
            if name not in self._described:
                self._described[name] = self._kept(self._describe_added, name)
            return _given(self._described[name])
        if found is not None:
            return found
        path = find_table(name, self._settings.data_root)
        if path is not None:
            self._own[name] = str(path)
            return self.find(name)
        others = [*bundled, *(each.name for each in self.packages.all)]
        raise unknown_dataset(name, self.catalog, others, self._settings.data_root)

    def add_own(
        self,
        place: str,
        columns: Mapping[str, str] | None = None,
        questions: OwnQuestions | None = None,
    ) -> str:
        """Take a table of the user's own, by its place; return its dataset's name.

        `columns` are what a benchmark says of them, in the place of the settings', and
        `questions` what it makes of the rows. Raises `VlmEvalError` if another
        benchmark says something else.
        """
        name = dataset_name(place)
        if questions:
            known = self._questions.setdefault(name, questions)
            if known.digest != questions.digest:
                raise VlmEvalError(
                    f"{place}: two benchmarks make other questions of its rows, "
                    f"{known.name} and {questions.name}. Let one have a copy of the "
                    "table, or inherit from the other."
                )
            self._described.pop(name, None)
        if columns and self._columns.setdefault(name, columns) != columns:
            raise VlmEvalError(
                f"{place}: two benchmarks give it different columns, "
                f"{dict(self._columns[name])} and {dict(columns)}. Give both the same, "
                "or let one have a copy of the table."
            )
        if columns:
            self._described.pop(name, None)
        first = self._own.setdefault(name, place)
        if first != place:
            self._clash = (first, place)
        return name

    def check_own(self) -> None:
        """Raise `VlmEvalError` where two tables have one name."""
        if self._clash is not None:
            first, second = self._clash
            raise VlmEvalError(
                f"{first} and {second} would both be the dataset "
                f"{dataset_name(first)}. Rename "
                "one of them, or evaluate them in two runs."
            )

    def check_classes(self, classes: Mapping[str, str]) -> None:
        """Raise `VlmEvalError` where a dataset's class is another than is named."""
        for name, class_name in classes.items():
            known = self.find(name).class_name
            if class_name != known:
                raise VlmEvalError(
                    f"--vlm-config names {class_name} as the class of {name}, which is "
                    f"{known} in ms-vlmeval. Name that, or leave class out."
                )

    def _describe_own(self, name: str) -> DatasetInfo:
        place = self._own[name]
        if name in demo_datasets() or name in self.catalog:
            if is_repository(place):
                raise VlmEvalError(
                    f"{place}: {name} is the name of a dataset that ms-vlmeval knows. "
                    f"Name its split: {place}:test is the dataset {name}-test."
                )
            raise VlmEvalError(
                f"{place}: {name} is the name of a dataset that ms-vlmeval knows. If "
                f"it is that one, put the file into {self._settings.data_root} and "
                "name it without its folder and suffix; otherwise rename the file."
            )
        added = self.packages.find(name)
        if added is not None:
            raise VlmEvalError(
                f"{place}: {name} is the name of a dataset that the package "
                f"{added.package} adds. Rename the file."
            )
        columns = self._columns.get(name, self._settings.columns)
        return describe_own(place, self._access, columns, self._questions.get(name))

    def added(self, name: str) -> Dataset | None:
        """Return what a package adds by a name; None if none does.

        Raises VlmEvalError if it cannot be loaded.
        """
        known = name in demo_datasets() or name in self.catalog
        added = self.packages.find(name, known=known)
        if added is None or name in self._own:
            return None
        if name not in self._added:
            self._added[name] = self._kept(lambda _: added.load(), name)
        return _given(self._added[name])

    def _describe_added(self, name: str) -> DatasetInfo:
        """Find the rows of a dataset of a package, and describe their table."""
        dataset, added = self.added(name), self.packages.find(name)
        assert dataset is not None
        assert added is not None
        rows = added.rows(dataset)
        if not isinstance(rows, str | Path):
            frame = as_frame(rows, f"{name} of the package {added.package}")
            folder = self._settings.cache_dir / "packages"
            rows = write_frame(name, frame, folder, added.folder)
        info = describe_own(str(rows), self._access, dataset.columns)
        if dataset.prompt == "question":
            info = replace(
                info, class_name=BARE_CLASS.class_name, module=BARE_CLASS.module
            )
        return replace(info, name=name, source=f"package {added.package}")

    def list_added(self) -> dict[Added, str]:
        """Return all that packages add, with why it cannot be had, "" if it can."""
        found: dict[Added, str] = {}
        for each in self.packages.all:
            try:
                self.added(each.name)
                found[each] = ""
            except VlmEvalError as error:
                found[each] = str(error)
        return found

    def prepared(self, name: str) -> PreparedDataset:
        """Return a dataset ready to be asked; `VlmEvalError` if it cannot be had."""
        with self._lock:
            if name not in self._prepared:
                self._prepared[name] = self._kept(self._prepare, name)
            return _given(self._prepared[name])

    def _kept(self, find: Callable[[str], Found], name: str) -> Found | VlmEvalError:
        """Return what is found, or the error, which each of a dataset's items has."""
        try:
            return find(name)
        except VlmEvalError as error:
            return error
        except Exception as error:
            return VlmEvalError(log_error(self._settings, error, "Preparing", name))

    def fetch(self, name: str) -> Path:
        """Return a dataset's file, downloaded with all that belongs to it."""
        try:
            sandbox = self.sandbox_for(name)
            return fetch_files(self.find(name), sandbox, self._access).place
        except SandboxFault as fault:
            why = log_error(self._settings, fault, "Fetching the files of", name)
            raise VlmEvalError(why) from None

    @cached_property
    def _access(self) -> FileAccess:
        settings = self._settings
        return FileAccess(
            data_root=settings.data_root,
            cache_dir=settings.cache_dir,
            allow_modified=settings.allow_modified_data,
            offline=settings.offline,
            mirror=settings.data_mirror,
            hubs=settings.hubs,
            announce=self._announce,
            own_paths=settings.data_paths,
            client=lambda hub: (
                self._environment_with(HUB if hub == "modelscope" else LIGHT).python
            ),
            max_gb=settings.download_max_gb,
            digest=lambda files: digest_in_sandbox(
                self._sandbox_with(LIGHT, scored=True), files
            ),
        )

    def _prepare(self, name: str) -> PreparedDataset:
        settings = self._settings
        info = show_videos(self.find(name), settings.nframe, settings.fps)
        prepared = prepare_dataset(
            info,
            self._access,
            sandbox=self.sandbox_for(name),
            sandbox_fingerprint=self._environment_with(addons_for(info)).fingerprint,
            video_url=settings.video_url,
            on_progress=self._announce_progress(name),
        )
        if prepared.version:
            self._announce(f"{name}: data of {prepared.version}")
        return prepared

    def _announce_progress(self, name: str) -> Callable[[int, int], None]:
        """Return what says every few seconds how far a preparation has come."""
        spoke_at = time.monotonic()

        def announce(done: int, total: int) -> None:
            nonlocal spoke_at
            if time.monotonic() - spoke_at >= ANNOUNCE_S:
                spoke_at = time.monotonic()
                percent = 100 * done // max(total, 1)
                self._announce(f"preparing {name}, once: {percent} %")

        return announce

    def rows(self, name: str) -> Sequence[IndexRow]:
        """Return index, category, group and reference of every sample, in order."""
        if name not in self._index:
            self._index[name] = read_index(self.prepared(name))
        return self._index[name]

    def shown(self, name: str) -> Sequence[frozenset[int]]:
        """Return the images and videos that each sample shows, by number."""
        if name not in self._shown:
            self._shown[name] = read_shown(self.prepared(name))
        return self._shown[name]

    def splits(self, name: str) -> Mapping[str, str]:
        """Return the split of each sample, where its table has a column of them."""
        return read_splits(self.prepared(name))

    def prompts(self, name: str) -> Prompts:
        """Return the prompts of a dataset's samples."""
        # The engine lets go of them in a thread of its own.
        prompts = self._prompts.get(name)
        if prompts is None:
            prompts = self._prompts[name] = Prompts(self.prepared(name))
        return prompts

    def prompt_texts(self, name: str) -> Iterator[str]:
        """Return the prompt of each sample as it is kept, in order; "" for none."""
        return read_prompts(self.prepared(name))

    def release_prompts(self) -> None:
        """Let go of all prompts; they are read again where they are needed."""
        self._prompts = {}

    def request(self, name: str, index: str) -> Request:
        """Return the prompt of a sample; `VlmEvalError` for a row that has none."""
        return Request(
            turns=self.prompts(name).turns(index),
            media_folder=self.prepared(name).folder / "media",
        )

    def close(self) -> None:
        """End the helper processes."""
        # Without the lock, which another thread may hold through a whole build.
        for sandbox in list(self._sandboxes.values()):
            sandbox.close()


def _given(found: Found | VlmEvalError) -> Found:
    if isinstance(found, VlmEvalError):
        raise found
    return found


ASKED_AT_ONCE = 16
# All sizes together; what is not known by then counts as unknown.
DEADLINE_S = 5.0


class _Source(NamedTuple):
    """Where a file is, or with hubs the repository that is to be downloaded."""

    place: str
    hubs: tuple[Hub, ...] = ()


class PlannedDownload(NamedTuple):
    """A missing file or repository; `size` in bytes, None where it is not known."""

    name: str
    source: str
    size: int | None


class DownloadPlan(NamedTuple):
    """What some datasets miss, largest first, unknown sizes last."""

    downloads: tuple[PlannedDownload, ...]

    @property
    def known_bytes(self) -> int:
        """The sum of the sizes that are known."""
        return sum(each.size or 0 for each in self.downloads)

    def summary(self) -> str:
        """Return one line for all."""
        unknown = [each.name for each in self.downloads if each.size is None]
        known = len(self.downloads) - len(unknown)
        parts = []
        if known:
            noun = "dataset" if known == 1 else "datasets"
            parts.append(f"{known} {noun}, {size_text(self.known_bytes)}")
        if unknown:
            parts.append(f"of unknown size: {', '.join(unknown)}")
        return f"to download: {'; '.join(parts)}"


class DataPlaces(NamedTuple):
    """Where data are, and may be downloaded from.

    `mirror` is a folder or an address instead of the published ones, and `hubs` are in
    the order in which they are asked.
    """

    data_root: Path
    mirror: str | None = None
    offline: bool = False
    hubs: Sequence[Hub] = ()


def list_missing(infos: Iterable[DatasetInfo], places: DataPlaces) -> Sequence[str]:
    """Return the datasets to be downloaded, the first of those that share a file.

    Datasets without an address (bundled ones, one's own) and, offline, those on a
    server are left out: this does not download them. So are repositories of which one
    of the hubs has files in its cache.
    """
    return list(_missing(infos, places).values())


def _missing(infos: Iterable[DatasetInfo], places: DataPlaces) -> Mapping[_Source, str]:
    data_root, mirror, offline, hubs = places
    missing: dict[_Source, str] = {}
    in_folder = mirror is not None and not is_url(mirror)
    for info in infos:
        # Presets share their files: they are downloaded once.
        file = source_of(info, mirror) if info.url and not info.path else None
        there = data_path(info, data_root).is_file()
        if file is not None and not there and not (offline and is_url(file)):
            missing.setdefault(_Source(file), info.name)
        name = info.repository
        wanted = name and hubs and not offline and not in_folder
        if wanted and not is_cached(name, hubs):
            missing.setdefault(_Source(name, tuple(hubs)), info.name)
    return missing


def plan_downloads(
    infos: Iterable[DatasetInfo], places: DataPlaces, *, deadline_s: float = DEADLINE_S
) -> DownloadPlan:
    """Ask for the sizes of what `list_missing` names, all at once; never raises."""
    missing = _missing(infos, places)
    sizes: dict[_Source, int | None] = {}
    if missing:
        pool = ThreadPoolExecutor(ASKED_AT_ONCE)
        asked = {each: pool.submit(_size, each, deadline_s) for each in missing}
        answered, _ = wait(asked.values(), timeout=deadline_s)
        # A late answer no longer counts; its thread ends at its own deadline.
        pool.shutdown(wait=False, cancel_futures=True)
        sizes = {
            each: asked[each].result() for each in asked if asked[each] in answered
        }
    planned = [
        PlannedDownload(name, source.place, sizes.get(source))
        for source, name in missing.items()
    ]
    # Stable, so that equals keep the order they were asked for in.
    planned.sort(key=lambda each: -1 if each.size is None else each.size, reverse=True)
    return DownloadPlan(tuple(planned))


def check_plan(plan: DownloadPlan, max_gb: float) -> None:
    """Raise VlmEvalError when the known sizes are more than `max_gb` together."""
    if plan.known_bytes <= max_gb * GB:
        return
    lines = [
        f"  {'unknown' if each.size is None else size_text(each.size):>8}  {each.name}"
        for each in plan.downloads
    ]
    raise VlmEvalError(
        f"The selected datasets have {size_text(plan.known_bytes)} to download, more "
        f"than --vlm-download-max-gb={max_gb:g}:\n"
        + "\n".join(lines)
        + "\nChoose fewer datasets with -m core (the usual eight), -k or "
        "--vlm-data=NAME,NAME, or allow more with --vlm-download-max-gb. Nothing was "
        "downloaded."
    )


def _size(source: _Source, timeout_s: float) -> int | None:
    if source.hubs:
        # The preferred one may not have it, where a class only knows the other.
        sizes = (repository_size(source.place, hub, timeout_s) for hub in source.hubs)
        return next((size for size in sizes if size is not None), None)
    with suppress(OSError, http.client.HTTPException, ValueError, TypeError):
        if not is_url(source.place):
            return Path(source.place).stat().st_size
        with open_url(source.place, method="HEAD", timeout_s=timeout_s) as response:
            return int(response.headers["Content-Length"])
    return None
