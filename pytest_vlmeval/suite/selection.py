"""Which datasets the selected tests need, before any of them is prepared.

pytest deselects items after they are collected, but collecting a dataset's samples
downloads and prepares it. So paths, node ids, `-k`, `-m` and `--lf` are looked at
first: a dataset none of whose items can be selected is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from _pytest.main import search_pypath
from _pytest.mark.expression import Expression
from _pytest.nodes import Node

from pytest_vlmeval.settings.option import dataset_name, is_table

if TYPE_CHECKING:
    from pytest_vlmeval.run import Run

# With more open terms than this, an expression may match whatever they are.
MOST_OPEN_TERMS = 8

# A term is true or false of a dataset's items, or open (None): true of some of them.
Known = Callable[[str], bool | None]


def may_select(function: pytest.Function, dataset: str) -> bool:
    """Return whether `function[dataset]` or `function[dataset-INDEX]` can be selected.

    `function` is the definition that pytest is about to parametrize.
    """
    option = function.config.option
    return (
        _may_match(option.keyword, _keyword_terms(function, dataset))
        and _may_match(option.markexpr, _marker_terms(function))
        and _ids_allow(named_ids(function), dataset)
        and _ids_allow(_last_failed_ids(function), dataset)
    )


class _OpenTermError(Exception):
    """Ends an evaluation at a term that has to be tried both ways."""

    def __init__(self, name: str) -> None:
        self.name = name


def _may_match(text: str, known: Known) -> bool:
    if not text:
        return True
    try:
        expression = Expression.compile(text)
    except SyntaxError:
        return True  # pytest itself reports it.
    return _possible(expression, known, {})


def _possible(expression: Expression, known: Known, assumed: dict[str, bool]) -> bool:
    def matches(name: str, /, **kwargs: str | int | bool | None) -> bool:
        value = assumed.get(name, known(name))
        if value is None:
            raise _OpenTermError(name)
        return value

    try:
        return expression.evaluate(matches)
    except _OpenTermError as term:
        if len(assumed) == MOST_OPEN_TERMS:
            return True
        return any(
            _possible(expression, known, {**assumed, term.name: value})
            for value in (True, False)
        )


def _keyword_terms(function: pytest.Function, dataset: str) -> Known:
    """Read `-k` as pytest does: a term is part of a name of the item or its parents."""
    start = f"{function.name}[{dataset}".lower()
    names = {node.name.lower() for node in function.listchain() if _has_keyword(node)}
    names |= {mark.name.lower() for mark in function.iter_markers()}
    names |= {name.lower() for name in function.listextrakeywords()}
    names.add(start + "]")

    def known(term: str) -> bool | None:
        term = term.lower()
        if any(term in name for name in names):
            return True
        return None if _may_reach_index(start + "-", term) else False

    return known


def _has_keyword(node: Node) -> bool:
    """Return whether `-k` looks at a node's name, as not at the session's."""
    in_session = isinstance(node.parent, pytest.Session)
    return not isinstance(node, pytest.Session) and not (
        isinstance(node, pytest.Directory) and in_session
    )


def _may_reach_index(start: str, term: str) -> bool:
    """Return whether `term` can be part of `start`, a sample's index and `]`.

    A term that lies within the index is taken for one if it has a digit and no
    hyphen: those that do are other datasets' ids.
    """
    if re.fullmatch(r"[^-\[\]]*\d[^-\[\]]*\]?", term):
        return True
    return any(
        start.endswith(term[:length]) and re.fullmatch(r"[^\[\]]*\]?", term[length:])
        for length in range(1, len(term) + 1)
    )


def _marker_terms(function: pytest.Function) -> Known:
    names = {mark.name for mark in function.iter_markers()}
    return lambda term: term in names


def _ids_allow(ids: set[str] | None, dataset: str) -> bool:
    return ids is None or any(
        each == dataset or each.startswith(f"{dataset}-") for each in ids
    )


def argument_path(config: pytest.Config, argument: str) -> Path:
    """Return what an argument names: a file or a folder, under --pyargs a module's."""
    name = argument.split("::")[0]
    found = search_pypath(name) if config.option.pyargs else None
    return (config.invocation_params.dir / (found or name)).resolve()


def named_ids(function: Node) -> set[str] | None:
    """Return the parameter ids that the command line names; None if it names none."""
    config = function.config
    ids = set()
    for argument in config.args:
        _, *names = argument.split("::")
        path = argument_path(config, argument)
        if not names:
            if path == function.path or path in function.path.parents:
                return None
        elif path == function.path:
            found = _id_of(function, "::".join(names))
            if found is None:
                return None
            ids |= found
    return ids


def is_narrowed(config: pytest.Config, folder: Path) -> bool:
    """Return whether the command line selects less than all tests of a folder."""
    given = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf")
    if any(getattr(config.option, name, None) for name in given):
        return True
    named = [
        argument_path(config, argument)
        for argument in config.args
        if "::" not in argument
    ]
    return not any(path == folder or path in folder.parents for path in named)


def is_in_ids(config: pytest.Config, dataset: str) -> bool:
    """Return whether the command line has the id of an item of a dataset."""
    for argument in config.args:
        parameter = argument.partition("::")[2].partition("[")[2].removesuffix("]")
        if parameter == dataset or parameter.startswith(f"{dataset}-"):
            return True
    return False


def _id_of(function: Node, names: str) -> set[str] | None:
    """Return the id in `Class::test[id]`, none of another test, None for no id."""
    name, _, parameter = names.partition("[")
    chain = "::".join(function.nodeid.split("::")[1:])
    if chain != name:
        return None if chain.startswith(name + "::") else set()
    return {parameter.removesuffix("]")} if parameter else None


def _last_failed_ids(function: pytest.Function) -> set[str] | None:
    """Return the ids that `--lf` selects; None if it selects everything."""
    config = function.config
    if not config.getoption("lf", False) or config.cache is None:
        return None
    failed: dict[str, bool] = config.cache.get("cache/lastfailed", {})
    ids = set()
    for nodeid in failed:
        file, *names = nodeid.split("::")
        if config.rootpath / file == function.path:
            ids |= _id_of(function, "::".join(names)) or set()
    # Without a failure in reach of the arguments pytest runs everything.
    return ids if any(_in_reach(config, nodeid) for nodeid in failed) else None


def _in_reach(config: pytest.Config, nodeid: str) -> bool:
    path = config.rootpath / nodeid.split("::")[0]
    for argument in config.args:
        named = argument_path(config, argument)
        if named == path or named in path.parents:
            return True
    return False


MARK = "vlm"


class Selected(NamedTuple):
    """Which of a test's datasets may have a selected item.

    `left_out` are those of them that are not run, and why they cannot be scored.
    """

    names: list[str]
    left_out: dict[str, str]


def selected_datasets(
    metafunc: pytest.Metafunc, datasets: Iterable[str], run: Run
) -> Selected:
    """Return the names of those of a test's datasets that may have a selected item."""
    found = Selected([], {})
    for dataset in run.choice.among(datasets):
        if may_select(metafunc.definition, dataset_name(dataset)):
            name = run.take(dataset)
            why = None
            if may_leave_out(metafunc.config, metafunc.cls, name, run):
                why = run.foresee_unscored(name)
            if why is None:
                found.names.append(name)
            else:
                found.left_out[name] = why
    return found


def may_leave_out(
    config: pytest.Config, benchmark: type | None, dataset: str, run: Run
) -> bool:
    """Return whether a dataset of a benchmark is left out where it cannot be scored.

    What the command line names is not: it is refused.
    """
    return (
        run.settings.mode != "infer"
        and getattr(benchmark, "unscored", "refuse") == "leave out"
        and not run.choice.names(dataset)
        and not is_in_ids(config, dataset)
    )


def named_datasets(metafunc: pytest.Metafunc) -> list[str]:
    """Return the datasets of a test: those of its marker, else of its class.

    A path counts from the folder of the test's file and is made absolute.
    """
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is not None:
        names: Iterable[object] = mark.args
    elif metafunc.cls is not None and hasattr(metafunc.cls, "datasets"):
        names = metafunc.cls.datasets
    else:
        names = ()
    found = list(dict.fromkeys(names))
    if isinstance(names, str) or not found or not _all_text(found):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid} uses a vlmeval fixture but names no dataset "
            f"(given: {names!r}). Mark it with "
            '@pytest.mark.vlm("MMStar"), or put it into a Benchmark class with '
            'datasets = ["MMStar"].'
        )
    folder = metafunc.definition.path.parent
    return [
        str(folder / str(name)) if is_table(str(name)) else str(name) for name in found
    ]


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value for value in values)
