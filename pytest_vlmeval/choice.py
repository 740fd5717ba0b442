"""What --vlm-data takes of the datasets that the tests of a session name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import OTHERS, dataset_name, is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_vlmeval.datasets.library import Library


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

    def names(self, dataset: str) -> bool:
        """Whether --vlm-data names a dataset."""
        return _any_is(map(dataset_name, self._asked), dataset)

    def named(self) -> list[str]:
        """Return the datasets that --vlm-data names, each once.

        Raises `VlmEvalError` for a name or a path that there is not.
        """
        from pytest_vlmeval.datasets.own import check_exists

        found: dict[str, None] = {}
        for asked in self._asked:
            if is_table(asked):
                check_exists(Path(asked), self._data_root)
                found[self._library().add_own(Path(asked))] = None
            else:
                info = self._library().find(asked)
                found.update(dict.fromkeys(info.members or [asked]))
        return list(found)

    def among(self, datasets: Iterable[str]) -> list[str]:
        """Return what is chosen of a test's datasets; without --vlm-data, all."""
        found: dict[str, None] = {}
        for dataset in datasets:
            if dataset == OTHERS:
                found.update(dict.fromkeys(self._others()))
            elif not self._asked or _any_is(self._asked, dataset):
                found[dataset] = None
        return list(found)

    def _others(self) -> Iterator[str]:
        for asked in self._asked:
            if not self._is_declared(asked):
                yield from self._members(asked)

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
                raise self._nobody_has(asked)
            if is_table(asked):
                check_exists(Path(asked), self._data_root)
            else:
                self._library().find(asked)

    def _nobody_has(self, asked: str) -> VlmEvalError:
        declared = sorted(map(dataset_name, self._declared))
        near = difflib.get_close_matches(asked, declared, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return VlmEvalError(
            f"--vlm-data={asked}: no selected benchmark has this dataset.{hint} The "
            f"selected benchmarks have: {', '.join(declared)}. A benchmark with "
            f"datasets = [{OTHERS!r}], as benchmarks/test_named.py, takes any."
        )


def _any_is(asked: Iterable[str], dataset: str) -> bool:
    """Whether one of the names means the dataset: as it is, or a table by its stem."""
    return any(each in (dataset, dataset_name(dataset)) for each in asked)
