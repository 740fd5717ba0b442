"""What a run is and asks: its identity, its datasets, their samples, their prompts."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.datasets.prepare import shuffle
from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.models.open import backend_of
from pytest_vlmeval.records import PlanEntry, Start
from pytest_vlmeval.sandbox.rows import FILE
from pytest_vlmeval.settings.groups import AS_IT_IS
from pytest_vlmeval.settings.option import OTHERS, dataset_name, is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.records import PreparedDataset, Setting
    from pytest_vlmeval.run.own_scoring import OwnScoring
    from pytest_vlmeval.run.store.runs import StoredRun
    from pytest_vlmeval.settings import Settings


def identify(settings: Settings) -> dict[str, Setting | None]:
    """Return what tells runs apart; the endpoint's address is not in it.

    The name under which a server takes the token limit changes no answer.
    """
    identity = settings.identity()
    if not backend_of(settings).is_served:
        identity.pop("images", None)  # how a server is sent them
    return identity


def generation_of(settings: Settings) -> dict[str, Setting | None]:
    """Return what an answer depends on beside the model and the prompt."""
    identity = identify(settings)
    del identity["model"], identity["backend"]
    return {**identity, "repeat": settings.repeat}


def tell_apart(mine: Mapping[str, object], others: Sequence[StoredRun]) -> list[str]:
    """Return a line on each run of the same model that goes on beside this one."""
    found = []
    for other in others:
        if other.model != mine["model"]:
            continue
        pairs = [(name, other.settings.get(name), mine[name]) for name in mine]
        differences = [
            f"its {name} is {'none' if theirs is None else theirs}, here it is "
            f"{'none' if ours is None else ours}"
            for name, theirs, ours in pairs
            if theirs != ours
        ]
        found.append(
            "another command works in this store at a run of its own, which shares "
            "no answers with this one: "
            + (", ".join(differences) or "one of them was started with --vlm-fresh")
        )
    return found


class Choice:
    """Chooses among names of datasets and absolute paths of tables.

    What `OTHERS` stands for is only known when all tests have declared theirs.
    """

    def __init__(
        self, asked: Sequence[str], library: Callable[[], Library], data_root: Path
    ) -> None:
        self._asked = asked
        self._data_root = data_root
        self._library = library
        self._declared: set[str] = set()

    def declare(self, datasets: Iterable[str]) -> None:
        """Take note of what a test runs over."""
        self._declared.update(datasets)

    @property
    def declared(self) -> list[str]:
        """The names of the datasets that tests run over, without what is open."""
        return sorted(map(dataset_name, self._declared - {OTHERS}))

    def names(self, dataset: str) -> bool:
        """Return whether --vlm-data names a dataset."""
        return _any_is(map(dataset_name, self._asked), dataset)

    def named(self) -> list[str]:
        """Return the datasets that --vlm-data names, each once.

        Raises `VlmEvalError` for a name or a path that there is not.
        """
        from pytest_vlmeval.datasets.own import check_exists

        found: dict[str, None] = {}
        for asked in self._asked:
            if is_table(asked):
                check_exists(asked, self._data_root)
                found[self._library().add_own(asked)] = None
            else:
                info = self._library().find(asked)
                found.update(dict.fromkeys(info.members or [asked]))
        return list(found)

    def among(self, datasets: Iterable[str]) -> list[str]:
        """Return what is chosen of a test's datasets; without --vlm-data, all."""
        found: dict[str, None] = {}
        for dataset in datasets:
            if dataset == OTHERS:
                for asked in self._asked:
                    if not self._is_declared(asked):
                        found.update(dict.fromkeys(self._members(asked)))
            elif not self._asked or _any_is(self._asked, dataset):
                found[dataset] = None
        return list(found)

    def _is_declared(self, asked: str) -> bool:
        return any(_any_is([asked], dataset) for dataset in self._declared)

    def _members(self, asked: str) -> Sequence[str]:
        """Return the datasets of a collection; of any other name itself."""
        if is_table(asked):
            return [asked]
        try:
            return self._library().find(asked).members or [asked]
        except VlmEvalError:
            return [asked]  # `check` says so.

    def check(self) -> None:
        """Raise VlmEvalError for what --vlm-data names and no test can run over."""
        from pytest_vlmeval.datasets.own import check_exists

        for asked in self._asked:
            if self._is_declared(asked):
                continue
            if OTHERS not in self._declared:
                declared = sorted(map(dataset_name, self._declared))
                raise VlmEvalError(
                    f"--vlm-data={asked}: no selected benchmark has this dataset."
                    f"{did_you_mean(asked, declared)} The selected benchmarks have: "
                    f"{', '.join(declared)}. A benchmark with "
                    f"datasets = [{OTHERS!r}], as benchmarks/test_named.py, takes any."
                )
            if is_table(asked):
                check_exists(asked, self._data_root)
            else:
                self._library().find(asked)


def _any_is(asked: Iterable[str], dataset: str) -> bool:
    """Return whether one of the names is the dataset's, or its table's stem."""
    return any(each in (dataset, dataset_name(dataset)) for each in asked)


class Need(NamedTuple):
    """What the selected items need of a dataset: all of it, or only these samples.

    `gated` says that its score is held against thresholds, `compared` in which folders
    against a baseline; `expected` that its thresholds, if any, have to be held.
    """

    whole: bool
    indexes: frozenset[str]
    gated: bool = False
    compared: frozenset[Path] = frozenset()
    expected: bool = False


def plan_entry(
    settings: Settings,
    prepared: PreparedDataset,
    rows: Sequence[IndexRow],
    need: Need,
    *,
    unscored: str = "",
    own: OwnScoring | None = None,
) -> PlanEntry:
    """Return what a session asks of a dataset, groups whole.

    In the dataset's order, or in a random one where it may stop early.
    """
    groups = {row.group for row in rows if row.index in need.indexes and row.group}
    if settings.gates.stop_early and need.whole:
        rows = shuffle(rows, settings.seed)
    asks_judges = prepared.info.judge != "unused" if own is None else own.wants_judge
    indexes = tuple(
        row.index
        for row in rows
        if need.whole or row.index in need.indexes or row.group in groups
    )
    return PlanEntry(
        dataset=prepared.info.name,
        fingerprint=prepared.fingerprint,
        modified=prepared.modified,
        indexes=indexes,
        judges=tuple(judge.label for judge in settings.judges if asks_judges),
        unscored=unscored,
        scorer="" if own is None else own.label,
        checksum=prepared.checksum,
        version=prepared.version,
    )


def write_request(
    library: Library, settings: Settings, dataset: str, index: str
) -> Request:
    """Return the prompt of a sample; `VlmEvalError` for a row that has none."""
    request = library.request(dataset, index)
    if backend_of(settings).is_ours:
        prepared = library.prepared(dataset)
        # For classes that write their own prompts.
        origin = {
            "dataset": dataset,
            "index": index,
            "kind": prepared.info.kind,
            "modality": prepared.info.modality,
            "rows": str(prepared.folder / FILE),
        }
        request = replace(request, origin=origin)
    prompting = settings.prompting
    if prompting == AS_IT_IS:
        return request
    return replace(request, system=prompting.system_prompt, prompting=prompting)


# What a served model's answers pass through, and what a model that runs here needs.
PACKAGES = ("pytest-vlmeval", "pytest", "openai", "pillow")
LOCAL_PACKAGES = ("torch", "transformers")


def describe_start(settings: Settings, library: Library, command: str) -> Start:
    """Return how a session is started, by a command without keys or by none."""
    package = locate_package(library.environment.python, settings.cache_dir)
    more = LOCAL_PACKAGES if backend_of(settings).is_ours else ()
    versions = {"Python": platform.python_version(), "ms-vlmeval": package.version}
    for name in (*PACKAGES, *more):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    gated = settings.baselines.gate_samples
    return Start(
        revision=find_revision(Path.cwd()),
        command=command,
        versions=versions,
        fails="wrong" if settings.wrong == "fail" else gated,
    )


LIMIT_S = 5.0


def find_revision(folder: Path) -> str:
    """Return the commit of a folder, with "-dirty" if it is changed; "" without git."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty"]
    command += ["--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
