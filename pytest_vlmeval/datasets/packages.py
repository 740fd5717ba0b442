"""Datasets that installed packages add, by the entry point group `vlmeval.datasets`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_vlmeval.errors import VlmEvalError, describe
from pytest_vlmeval.settings.option import (
    NOT_IN_NAMES,
    are_columns,
    can_be_name,
    is_repository,
    parse_columns,
)

if TYPE_CHECKING:
    import pandas as pd

    Rows = str | Path | pd.DataFrame | Iterable[Mapping[str, object]]

GROUP = "vlmeval.datasets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset that a package adds: its rows, how they are asked and scored.

    `rows` is the absolute path of a table or a repository of a hub (hf:OWNER/NAME), as
    `--vlm-data` takes them, or a function without arguments that returns such a place,
    a DataFrame or a list of rows by column; relative paths of images in the latter
    count from the folder of the package's module. `columns` is as `--vlm-columns`, for
    names of columns that are not those of a user's table.

    With `prompt="question"` a row's question is sent as it stands, after its images,
    instead of what ms-vlmeval writes around it; that takes a `score`. `score`,
    `aggregate` and `scoring` are those of `Benchmark`, without self; without a `score`
    ms-vlmeval scores the rows as a user's table.
    """

    rows: str | Path | Callable[[], Rows]
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt: Literal["ms-vlmeval", "question"] = "ms-vlmeval"
    score: Callable[..., object] | None = None
    aggregate: Callable[..., Mapping[str, float]] | None = None
    scoring: str = ""


class Added(NamedTuple):
    """A name that a package adds, loaded when it is asked for."""

    name: str
    package: str
    entry: EntryPoint

    def load(self) -> Dataset:
        """Import what the entry point names; `VlmEvalError` if that fails."""
        try:
            found = self.entry.load()
        except (Exception, SystemExit) as error:
            raise VlmEvalError(
                f"{self.name} cannot be loaded from the package {self.package} (entry "
                f"point {self.entry.value!r} of {GROUP}): {describe(error)}"
                f"{_raised_in(error)}. Install another version of "
                f"{self.package.partition(' ')[0]}, with all that it needs, or "
                "uninstall it."
            ) from None
        if not isinstance(found, Dataset):
            raise self._refusal(
                f"is a {type(found).__name__}. It has to be a pytest_vlmeval.Dataset"
            )
        if not can_be_name(self.name):
            raise self._refusal(f"cannot have this name. Leave out {NOT_IN_NAMES}")
        if found.prompt not in ("ms-vlmeval", "question"):
            raise self._refusal(
                f"has prompt={found.prompt!r}. It takes 'ms-vlmeval' or 'question'"
            )
        if not are_columns(found.columns):
            raise self._refusal(
                f"has columns={dict(found.columns)!r}. It maps "
                f"{parse_columns.accepts.partition('; of ')[2]} to names of columns, "
                "each to one: {'question': 'prompt'}"
            )
        if found.prompt == "question" and found.score is None:
            raise self._refusal(
                "has prompt='question' and no score: ms-vlmeval scores what it asks. "
                "Add score, or leave prompt out"
            )
        return found

    def rows(self, dataset: Dataset) -> Rows:
        """Return where the rows are, or themselves; `VlmEvalError` if that fails."""
        rows: Rows
        if callable(dataset.rows):
            try:
                rows = dataset.rows()
            except VlmEvalError:
                raise
            except (Exception, SystemExit) as error:
                raise VlmEvalError(
                    f"{self.name}: the rows of the package {self.package} cannot be "
                    f"had: {describe(error)}{_raised_in(error)}."
                ) from None
        else:
            rows = dataset.rows
        if isinstance(rows, str | Path) and not (
            is_repository(str(rows)) or Path(rows).is_absolute()
        ):
            raise self._refusal(
                f"has rows={str(rows)!r}. Give the absolute path of its table, as "
                "Path(__file__).with_name('NAME.tsv'), or a hub's hf:OWNER/NAME"
            )
        return rows

    @property
    def folder(self) -> Path:
        """The folder of the module that the entry point names."""
        spec = find_spec(self.entry.module)
        origin = spec.origin if spec is not None else None
        return Path(origin or ".").absolute().parent

    def _refusal(self, text: str) -> VlmEvalError:
        return VlmEvalError(
            f"{self.name} of the package {self.package} (entry point "
            f"{self.entry.value!r} of {GROUP}) {text}."
        )


class Packages:
    """The datasets of all installed packages, by name."""

    @cached_property
    def _added(self) -> Mapping[str, Sequence[Added]]:
        found: dict[str, list[Added]] = {}
        for entry in entry_points(group=GROUP):
            dist = entry.dist
            package = f"{dist.name} {dist.version}" if dist is not None else "unknown"
            found.setdefault(entry.name, []).append(Added(entry.name, package, entry))
        return found

    @property
    def all(self) -> Sequence[Added]:
        """Every name that a package adds, in their order."""
        return [each for name in sorted(self._added) for each in self._added[name]]

    def find(self, name: str, *, known: bool = False) -> Added | None:
        """Return what adds a dataset; None if nothing does.

        Raises VlmEvalError if several packages do, or ms-vlmeval has such a name
        (`known`).
        """
        found = self._added.get(name, ())
        if not found:
            return None
        owners = [f"the package {each.package}" for each in found]
        if known:
            owners.insert(0, "ms-vlmeval")
        if len(owners) > 1:
            raise VlmEvalError(
                f"{name} is the name of datasets of {' and '.join(owners)}. Uninstall "
                f"{owners[-1].removeprefix('the package ').partition(' ')[0]}, or have "
                f"its entry point of {GROUP} renamed."
            )
        return found[0]


def _raised_in(error: BaseException) -> str:
    """Return the last place that an exception came through, outside of Python's own."""
    frames = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if not each.filename.startswith("<frozen")
        and "importlib" not in Path(each.filename).parts
        and Path(each.filename) != Path(__file__)
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
