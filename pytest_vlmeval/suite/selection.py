"""Which datasets a session needs, and what of them is to be downloaded, ahead of it.

A dataset's items are known once it is prepared. So while pytest collects, a test over
datasets only notes the names of those whose items paths, node ids, `-k`, `-m` and
`--lf` may select, and has no items. When all tests are collected the sum of the
downloads is known, before the first byte, and may be refused; then the tests get their
items, where pytest would have put them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _pytest.main import search_pypath
from _pytest.mark import KeywordMatcher, MarkMatcher
from _pytest.mark.expression import Expression
from _pytest.nodes import Node

from pytest_vlmeval.datasets.unscored import explain_left_out, explain_refusal
from pytest_vlmeval.errors import VlmEvalError, find_nearest, log_error
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.settings.option import (
    OTHERS,
    TABLES,
    are_columns,
    dataset_name,
    is_table,
    list_datasets,
    parse_columns,
    table_place,
)
from pytest_vlmeval.suite import (
    Benchmark,
    Parameter,
    SampleParameter,
    ScoreParameter,
    UnpreparedParameter,
    UnselectedParameter,
    dataset_of,
    parameter_of,
    questions_of,
    scoring_of,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import DataPlaces, DownloadPlan
    from pytest_vlmeval.datasets.own_questions import OwnQuestions
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.run import Run
    from pytest_vlmeval.run.plan import Need

    Collected = pytest.Item | pytest.Collector

# With more open terms than this, an expression may match whatever they are.
MOST_OPEN_TERMS = 8
# The datasets some of whose items were deselected.
DESELECTED = pytest.StashKey[set[str]]()
# Whether the command line selects less than all tests of a folder.
NARROWED = pytest.StashKey[dict[Path, bool]]()


def may_select(function: pytest.Function, dataset: str) -> bool:
    """Return whether `function[dataset]` or `function[dataset-INDEX]` can be selected.

    `function` is the definition that pytest is about to parametrize.
    """
    option = function.config.option
    name = f"{function.name}[{dataset}".lower()
    names = KeywordMatcher.from_item(function)

    def keyword(term: str, /, **kwargs: str | int | bool | None) -> bool | None:
        if names(term) or term.lower() in f"{name}]":
            return True
        return None if _may_reach_index(f"{name}-", term.lower()) else False

    markers = MarkMatcher.from_markers(function.iter_markers())
    return (
        _may_match(option.keyword, keyword)
        and _may_match(option.markexpr, markers)
        and all(
            ids is None or any(_is_of(each, dataset) for each in ids)
            for ids in (named_ids(function), _last_failed_ids(function))
        )
    )


def index_words(function: pytest.Function, dataset: str) -> list[str]:
    """Return the words of `-k` that may select samples by their index alone.

    None do if `-k` names the dataset, or selects it whatever its samples' indexes are.
    """
    keyword, start = function.config.option.keyword, f"{function.name}[{dataset}"
    terms = _terms(keyword)
    if any(term.lower() in dataset.lower() for term in terms):
        return []
    names = KeywordMatcher.from_item(function)

    def matches(term: str, /, **kwargs: str | int | bool | None) -> bool:
        return names(term) or term.lower() in f"{start}]".lower()

    if _may_match(keyword, matches):
        return []
    return [
        term
        for term in terms
        if not matches(term) and _may_reach_index(f"{start}-".lower(), term.lower())
    ]


def _terms(keyword: str) -> list[str]:
    """Return the words of `-k` that are to match something."""
    found = re.findall(r"[\w.-]+", keyword)
    return [term for term in found if term not in ("and", "or", "not")]


def _may_match(text: str, known: Callable[..., bool | None]) -> bool:
    """Return whether an expression can be true of an item of a dataset.

    A term is known to be true or false of all of them, or open (None): true of some.
    """
    if not text:
        return True
    try:
        expression = Expression.compile(text)
    except SyntaxError:
        return True  # pytest itself reports it.
    assumed: dict[str, bool] = {}

    def matches(name: str, /, **kwargs: str | int | bool | None) -> bool:
        value = known(name, **kwargs)
        return assumed.setdefault(name, False) if value is None else value

    while not expression.evaluate(matches):
        # The next of all assumptions about the open terms, the last one first.
        while assumed and list(assumed.values())[-1]:
            assumed.popitem()
        if not assumed:
            return False
        if len(assumed) > MOST_OPEN_TERMS:
            return True
        assumed[next(reversed(assumed))] = True
    return True


def _may_reach_index(start: str, term: str) -> bool:
    """Return whether `term` can be part of `start`, a sample's index and `]`.

    A term is assumed to be part of an index if it has a digit and no hyphen: terms
    with a hyphen are other datasets' ids.
    """
    if re.fullmatch(r"[^-\[\]]*\d[^-\[\]]*\]?", term):
        return True
    return any(
        start.endswith(term[:length]) and re.fullmatch(r"[^\[\]]*\]?", term[length:])
        for length in range(1, len(term) + 1)
    )


def _is_of(parameter: str, dataset: str) -> bool:
    """Return whether the id of an item is that of a dataset's."""
    return parameter == dataset or parameter.startswith(f"{dataset}-")


def _arguments(config: pytest.Config) -> Iterator[tuple[Path, str]]:
    """Yield the paths that the command line names, and what is named in each file."""
    for argument in config.args:
        name, _, names = argument.partition("::")
        found = search_pypath(name) if config.option.pyargs else None
        yield (config.invocation_params.dir / (found or name)).resolve(), names


def named_ids(function: Node) -> set[str] | None:
    """Return the parameter ids that the command line names; None if it names none."""
    return _ids_among(function, _arguments(function.config))


def _ids_among(function: Node, named: Iterable[tuple[Path, str]]) -> set[str] | None:
    """Return a test's ids, as `id` in `Class::test[id]`; None if one has all of it."""
    chain = "::".join(function.nodeid.split("::")[1:])
    ids = set()
    for path, names in named:
        name, bracket, parameter = names.partition("[")
        if not names:
            has_all = path in (function.path, *function.path.parents)
        else:
            has_all = path == function.path and f"{chain}::".startswith(f"{names}::")
        if has_all:
            return None
        if path == function.path and bracket and name == chain:
            ids.add(parameter.removesuffix("]"))
    return ids


def _last_failed_ids(function: pytest.Function) -> set[str] | None:
    """Return the ids that `--lf` selects; None if it selects everything."""
    config = function.config
    if not config.getoption("lf", False) or config.cache is None:
        return None
    failed = [
        (config.rootpath / file, names)
        for file, _, names in (
            nodeid.partition("::")
            for nodeid in config.cache.get("cache/lastfailed", {})
        )
    ]
    # Without a failure in reach of the arguments pytest runs everything.
    places = {path for path, _ in _arguments(config)}
    if not any(places & {path, *path.parents} for path, _ in failed):
        return None
    return _ids_among(function, failed)


def explain_no_match(
    keyword: str, mark: str, asked: Sequence[str], datasets: Sequence[str]
) -> str:
    """Explain that `-k` and `-m` select none of the tests over these datasets.

    Of the two what was not given is "". `asked` is what --vlm-data names, if anything.
    """
    options = {"-k": keyword, "-m": mark}
    given = [f"{name} {shlex.quote(text)}" for name, text in options.items() if text]
    select = "selects" if len(given) == 1 else "select"
    if asked:
        data = f"--vlm-data={shlex.quote(list_datasets(asked))}"
        return (
            f"{' and '.join(given)} {select} no test of {data}. A test runs only if "
            "each of these options selects it: leave one out."
        )
    if mark:
        return (
            f"{' and '.join(given)} {select} no test. `pytest --markers` lists what "
            "-m selects by."
        )
    return (
        f"{given[0]} matches no test.{_explain_words(_terms(keyword), datasets)} It "
        "selects by the names of datasets, which `pytest --vlm-list` lists, and of "
        "tests: test_sample, test_score and test_no_regression."
    )


def explain_guess(
    keyword: str, words: Sequence[str], missing: int, datasets: Sequence[str]
) -> str:
    """Explain that these words of `-k` name no dataset, and are not searched for.

    As many datasets are `missing` on disk; `datasets` are all that there are.
    """
    what = "is neither a dataset nor a test"
    if len(words) > 1:
        what = "are neither datasets nor tests"
    them = "it" if len(words) == 1 else "them"
    noun = "1 dataset that is" if missing == 1 else f"{missing} datasets that are"
    return (
        f"-k {shlex.quote(keyword)}: {' and '.join(words)} {what}. To look for {them} "
        f"in the indexes of samples, {noun} not on disk would be downloaded."
        f"{_explain_words(words, datasets)} Name what is meant, as in "
        f"-k {shlex.quote(keyword)} --vlm-data=NAME. `pytest --vlm-list` lists the "
        "names."
    )


def _explain_words(words: Iterable[str], datasets: Sequence[str]) -> str:
    """Return what words of `-k` may have meant: a dataset, or a table that is here."""
    unknown = [
        word
        for word in words
        if not word.startswith("test_")
        and not any(word.lower() in each.lower() for each in datasets)
    ]
    near = [name for word in unknown for name in find_nearest(word, datasets)]
    tables = sorted(
        each.name
        for each in Path().iterdir()
        if each.stem in unknown and each.suffix.lower() in TABLES and each.is_file()
    )
    text = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    for name in tables:
        text += f" {name} is a table: run it with {shlex.quote(f'--vlm-data={name}')}."
    return text


def is_narrowed(config: pytest.Config, folder: Path) -> bool:
    """Return whether the command line selects less than all tests of a folder."""
    given = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf")
    return any(getattr(config.option, name, None) for name in given) or not any(
        not names and path in (folder, *folder.parents)
        for path, names in _arguments(config)
    )


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
        and not any(
            _is_of(names.partition("[")[2].removesuffix("]"), dataset)
            for _, names in _arguments(config)
        )
    )


def named_datasets(metafunc: pytest.Metafunc) -> list[str]:
    """Return the datasets of a test: those of its marker, else of its class.

    A path counts from the folder of the test's file and is made absolute.
    """
    mark = metafunc.definition.get_closest_marker("vlm")
    names: Any = mark.args if mark else getattr(metafunc.cls, "datasets", ())
    found = [] if isinstance(names, str) else [*dict.fromkeys(names)]
    if not found or not all(isinstance(each, str) and each for each in found):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid} uses a vlmeval fixture but names no dataset "
            f"(given: {names!r}). Mark it with "
            '@pytest.mark.vlm("MMStar"), or put it into a Benchmark class with '
            'datasets = ["MMStar"].'
        )
    folder = metafunc.definition.path.parent
    return [table_place(name, folder) for name in found]


def columns_of(metafunc: pytest.Metafunc) -> Mapping[str, str] | None:
    """Return what a test's class says of its tables' columns; None for nothing."""
    given: Any = getattr(metafunc.cls, "columns", None)
    if not given or metafunc.definition.get_closest_marker("vlm"):
        return None
    if not isinstance(given, Mapping) or not are_columns(given):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid}: columns = {given!r} is not accepted. It "
            f"maps {parse_columns.accepts.partition('; of ')[2]} to names of columns, "
            'each to one: {"question": "prompt"}.'
        )
    return given


def _questions_of(metafunc: pytest.Metafunc, dataset: str) -> OwnQuestions | None:
    """Return what a test's class makes questions by; None for nothing."""
    benchmark = metafunc.cls
    if benchmark is None or not issubclass(benchmark, Benchmark):
        return None
    if metafunc.definition.get_closest_marker("vlm"):
        return None
    try:
        questions = questions_of(benchmark)
    except VlmEvalError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    if questions is not None and not is_table(dataset):
        raise pytest.Collector.CollectError(
            f"{questions.name} ({questions.place}) makes questions of a table's rows, "
            f"and {dataset} is a dataset with questions of its own. Name the place of "
            "a table, or leave questions out."
        )
    return questions


class DeferredTest(pytest.Collector):
    """A test over datasets, whose items are made once what all tests need is known.

    Where the command line names one of its items, it has the name of that, and no
    other.
    """

    def __init__(self, *, test: str, obj: object, forecast: Forecast, **given: Any):
        super().__init__(**given)
        self.test = test
        self.obj = obj
        self._forecast = forecast

    def collect(self) -> Iterable[Collected]:
        """Return the items, none while needs are noted."""
        return self._forecast.items_of(self)


class LeftOut(NamedTuple):
    """Why a dataset is left out.

    `gated` are the folders of the tests that would hold it against thresholds,
    `compared` of those that would against a baseline.
    """

    why: str
    gated: set[Path]
    compared: set[Path]


class Forecast:
    """The names of the datasets that a session's tests need, noted ahead of them.

    `noting` is true until all tests are collected; `refusal` is why the session is to
    end before its first download. With `names_only` no test gets an item.
    """

    def __init__(self, *, names_only: bool = False) -> None:
        self.names_only = names_only
        self.names: dict[str, None] = {}
        # Of benchmarks that leave out what cannot be scored.
        self.left_out: dict[str, LeftOut] = {}
        # By words of -k that may be part of their samples' indexes, and no more.
        self._guessed: dict[str, list[str]] = {}
        self.noting = True
        self.refusal: str | None = None
        # The datasets of each test, by its node id.
        self._selected: dict[str, list[str]] = {}
        # Those that run over what others do not, looked at when all others are known.
        self._open: list[tuple[pytest.Metafunc, list[str]]] = []
        # Each with how many items were collected before it, since the first.
        self._deferred: list[tuple[DeferredTest, int]] = []
        self._collected = 0
        self._made: dict[tuple[pytest.Collector, str], Sequence[Collected]] = {}

    def parametrize(self, metafunc: pytest.Metafunc, fixture: str, run: Run) -> None:
        """Note the datasets of a test; later expand it over their samples or scores."""
        parameters: list[Parameter] = []
        if self.noting:
            datasets = named_datasets(metafunc)
            run.choice.declare(datasets)
            if OTHERS in datasets:
                self._open.append((metafunc, datasets))
            else:
                self._note(metafunc, datasets, run)
        else:
            for dataset in self._selected[metafunc.definition.nodeid]:
                parameters += _expand(run, dataset, fixture)
        parameters = parameters or [UnselectedParameter()]
        # Their ids come by the hook, whose text pytest takes as it is.
        metafunc.parametrize(fixture, parameters, indirect=True)

    def _note(
        self, metafunc: pytest.Metafunc, datasets: Sequence[str], run: Run
    ) -> None:
        function, fixtures = metafunc.definition, metafunc.fixturenames
        config, folder = metafunc.config, function.path.parent
        names = self._selected[function.nodeid] = []
        for dataset in run.choice.among(datasets):
            if not may_select(function, dataset_name(dataset)):
                continue
            columns, questions = columns_of(metafunc), _questions_of(metafunc, dataset)
            try:
                name, why = run.take(dataset, columns, questions), None
            except VlmEvalError as error:
                raise pytest.Collector.CollectError(str(error)) from None
            _declare_scoring(run, name, metafunc.cls)
            if may_leave_out(config, metafunc.cls, name, run):
                why = run.foresee_unscored(name)
            if why is None:
                names.append(name)
                known = name in self.names and name not in self._guessed
                self.names[name] = None
                words = index_words(function, dataset_name(dataset))
                if words and not known and not run.choice.names(dataset):
                    self._guessed[name] = words
                else:
                    self._guessed.pop(name, None)
                continue
            left = self.left_out.setdefault(name, LeftOut(why, set(), set()))
            if "snapshot" in fixtures:
                left.compared.add(folder)
            elif "vlm_score" in fixtures or not is_narrowed(config, folder):
                left.gated.add(folder)

    def defer(
        self, collector: pytest.Collector, test: str, obj: object, made: object
    ) -> object:
        """Put a test without items in the place of those that show nothing."""
        if not any(map(parameter_of, _as_list(made))):
            return made
        options = {"test": test, "obj": obj, "forecast": self}
        whole = DeferredTest.from_parent(collector, name=test, **options)
        return [
            DeferredTest.from_parent(collector, name=f"{test}[{each}]", **options)
            for each in sorted(named_ids(whole) or ())
        ] or [whole]

    def pytest_itemcollected(self) -> None:
        """Count what is collected between the tests whose items are still to come."""
        self._collected += 1

    def items_of(self, node: DeferredTest) -> Sequence[Collected]:
        """Return the items of a test; none while names are noted."""
        if self.noting:
            self._deferred.append((node, self._collected))
            return ()
        parent = node.parent
        assert parent is not None
        key = parent, node.test
        if key not in self._made:
            # By the hook, as pytest does: it asks for the parameters once more.
            made = parent.ihook.pytest_pycollect_makeitem(
                collector=parent, name=node.test, obj=node.obj
            )
            self._made[key] = _as_list(made)
        if node.name == node.test:
            return self._made[key]
        return [item for item in self._made[key] if item.name == node.name]

    def end_noting(self, run: Run) -> None:
        """Take up the tests that run over what no other does."""
        self.noting = False
        for metafunc, datasets in self._open:
            self._note(metafunc, datasets, run)

    def expand(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put the items of the tests where they would have been collected.

        Raises `pytest.UsageError` for one that the command line names and none has.
        """
        count, taken = self._collected, 0
        found: list[pytest.Item] = []
        for node, before in self._deferred:
            place = len(items) - (count - before)
            found += items[taken:place]
            taken = place
            assert node.parent is not None
            # pytest keeps what a node had, so another one is asked.
            again = DeferredTest.from_parent(
                node.parent, name=node.name, test=node.test, obj=node.obj, forecast=self
            )
            made = [*session.genitems(again)]
            if (
                not made
                and node.name != node.test
                and (node.parent, node.test) in self._made
            ):
                raise pytest.UsageError(
                    f"not found: {node.nodeid}\n(no match in any of [{node.parent!r}])"
                )
            found += made
        items[:] = [*found, *items[taken:]]
        # What is deselected now goes.
        self._made.clear()

    def check(
        self,
        run: Run,
        announce: Callable[[str], None],
        *,
        keyword: str,
        only_collects: bool,
    ) -> None:
        """Describe what is to be downloaded, and what is left out.

        Refuses the session where that is too much, or is only to look for a `keyword`
        of `-k`, or what is asked for cannot be scored: no reason for one that
        `only_collects`, and asks nothing.
        """
        if self.names and not only_collects and run.settings.model is None:
            self.refusal = NO_MODEL
            return
        if missing := missing_datasets(run, self._guessed):
            words = [each for name in missing for each in self._guessed[name]]
            self.refusal = explain_guess(
                keyword, list(dict.fromkeys(words)), len(missing), run.choice.declared
            )
            return
        try:
            run.scorings.check(self.names)
        except VlmEvalError as error:
            self.refusal = str(error)
            return
        reasons = {
            name: why
            for name in self.names
            if not only_collects and run.settings.mode != "infer"
            if (why := run.foresee_unscored(name) or run.foresee_unusable(name))
        }
        left_out = {name: left.why for name, left in self.left_out.items()}
        if reasons or (left_out and not self.names):
            self.refusal = explain_refusal(reasons or left_out)
            return
        if left_out:
            announce(explain_left_out(left_out))
        try:
            plan = plan_session(run, self.names)
        except VlmEvalError as error:
            self.refusal = str(error)
        else:
            if plan.downloads:
                announce(plan.summary())


def _declare_scoring(run: Run, dataset: str, benchmark: type | None) -> None:
    """Note by what a benchmark scores a dataset; a test of another class takes that."""
    if benchmark is not None and issubclass(benchmark, Benchmark):
        make = partial(scoring_of, benchmark)
        run.scorings.declare(dataset, benchmark.__name__, benchmark, make)


def _expand(run: Run, dataset: str, fixture: str) -> Sequence[Parameter]:
    try:
        rows = run.rows(dataset)
    except VlmEvalError as error:
        return [UnpreparedParameter(dataset=dataset, error=str(error))]
    except Exception as error:
        why = log_error(run.settings, error, "Preparing", dataset)
        return [UnpreparedParameter(dataset=dataset, error=why)]
    if fixture == "vlm_score":
        return [ScoreParameter(dataset=dataset)]
    return [SampleParameter(dataset=dataset, row=row) for row in rows]


def _as_list(made: Any) -> list[Any]:
    """Return what was made of a test; a plugin may have given one item, or nothing."""
    return made if isinstance(made, list) else [made] if made else []


def plan_session(run: Run, names: Iterable[str]) -> DownloadPlan:
    """Return what is missing of these datasets.

    Raises VlmEvalError if it is too much, or if an option does not apply to them.
    """
    from pytest_vlmeval.datasets.library import check_plan, plan_downloads
    from pytest_vlmeval.datasets.prepare import check_frames_apply

    settings = run.settings
    infos = _find_all(run, names)
    check_frames_apply(infos, settings.nframe, settings.fps)
    plan = plan_downloads(infos, _places(run))
    check_plan(plan, settings.download_max_gb)
    return plan


def missing_datasets(run: Run, names: Iterable[str]) -> Sequence[str]:
    """Return which of these datasets would have to be downloaded."""
    from pytest_vlmeval.datasets.library import list_missing

    return list_missing(_find_all(run, names), _places(run))


def _places(run: Run) -> DataPlaces:
    from pytest_vlmeval.datasets.library import DataPlaces

    settings = run.settings
    return DataPlaces(
        settings.data_root, settings.data_mirror, settings.offline, settings.hubs
    )


def _find_all(run: Run, names: Iterable[str]) -> Sequence[DatasetInfo]:
    infos: list[DatasetInfo] = []
    for name in names:
        # An item of its own says what cannot be found.
        with suppress(VlmEvalError):
            infos.append(run.library.find(name))
    return infos


def gate_folders(items: Iterable[pytest.Item]) -> list[Path]:
    """Return the folders whose thresholds count, each once.

    Those of the tests that ask for a score, and those that are run as a whole.
    """
    return list(
        dict.fromkeys(
            item.path.parent
            for item in items
            if isinstance(parameter := parameter_of(item), ScoreParameter)
            or (isinstance(parameter, SampleParameter) and not _is_partial(item))
        )
    )


def wants_judge(item: pytest.Item) -> bool:
    """Return whether a test asks a judge by itself."""
    return "vlm_judge" in getattr(item, "fixturenames", ())


def drop_placeholders(items: list[pytest.Item]) -> list[pytest.Item]:
    """Take out items that show nothing, and return them.

    A dataset that cannot be prepared keeps one item, which fails and says why.
    """
    reported: set[str] = set()

    def is_dropped(item: pytest.Item) -> bool:
        parameter = parameter_of(item)
        if not isinstance(parameter, UnpreparedParameter):
            return isinstance(parameter, UnselectedParameter)
        again = parameter.dataset in reported
        reported.add(parameter.dataset)
        return again

    return _take_out(items, is_dropped)


def take_unscored(
    items: list[pytest.Item], reasons: Mapping[str, str], run: Run
) -> list[pytest.Item]:
    """Take out, and return, items of datasets that cannot be scored, for `reasons`.

    Only those of benchmarks that leave them out; others stay.
    """

    def is_left_out(item: pytest.Item) -> bool:
        dataset, cls = dataset_of(item), getattr(item, "cls", None)
        return dataset in reasons and may_leave_out(item.config, cls, dataset, run)

    return _take_out(items, is_left_out)


def _take_out(
    items: list[pytest.Item], is_out: Callable[[pytest.Item], bool]
) -> list[pytest.Item]:
    found = {item: is_out(item) for item in items}
    items[:] = [item for item, out in found.items() if not out]
    return [item for item, out in found.items() if out]


def note_deselected(items: Iterable[pytest.Item]) -> None:
    """Remember of which datasets a session does not have all items."""
    for item in items:
        parameter = parameter_of(item)
        if isinstance(parameter, SampleParameter | ScoreParameter):
            found = item.config.stash.setdefault(DESELECTED, set())
            found.add(parameter.dataset)


def _is_partial(item: pytest.Item) -> bool:
    """Return whether a session may lack some tests of an item's dataset, in its folder.

    They may be deselected, or lie where nothing is collected.
    """
    stash, folder = item.config.stash, item.path.parent
    narrowed = stash.setdefault(NARROWED, {})
    if folder not in narrowed:
        narrowed[folder] = is_narrowed(item.config, folder)
    return narrowed[folder] or dataset_of(item) in stash.get(DESELECTED, ())


def needed_datasets(items: Iterable[pytest.Item]) -> Mapping[str, Need]:
    """Return what the items need of each dataset, in the order of the items."""
    from pytest_vlmeval.run.plan import Need

    whole: set[str] = set()
    gated: set[str] = set()
    compared: dict[str, set[Path]] = {}
    indexes: dict[str, set[str]] = {}
    expected: set[str] = set()
    for item in items:
        parameter, function = parameter_of(item), getattr(item, "function", None)
        if isinstance(parameter, SampleParameter | ScoreParameter) and (
            function is Benchmark.test_score or not _is_partial(item)
        ):
            expected.add(parameter.dataset)
        if isinstance(parameter, SampleParameter):
            indexes.setdefault(parameter.dataset, set()).add(parameter.row.index)
        elif isinstance(parameter, ScoreParameter):
            indexes.setdefault(parameter.dataset, set())
            whole.add(parameter.dataset)
            if "snapshot" in getattr(item, "fixturenames", ()):
                folders = compared.setdefault(parameter.dataset, set())
                folders.add(item.path.parent)
            if function is not Benchmark.test_no_regression:
                gated.add(parameter.dataset)
    return {
        name: Need(
            whole=name in whole,
            indexes=frozenset() if name in whole else frozenset(found),
            gated=name in gated,
            compared=frozenset(compared.get(name, ())),
            expected=name in expected,
        )
        for name, found in indexes.items()
    }
