"""Every class gives our scoring the metrics that its own `evaluate` returns.

The answers of each schema are evaluated by ms-vlmeval itself, without our containment
and with a scripted judge or none, and by ours; both must agree to the last digit.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.errors import NeedsJudgeError
from pytest_vlmeval.records import JudgeReply, PreparedDataset
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.environment import ADDONS, addons_for, waiting_lock
from pytest_vlmeval.sandbox.inside.families import FAMILIES, REFUSED
from pytest_vlmeval.sandbox.inside.metrics import flatten
from pytest_vlmeval.sandbox.rows import COLUMNS, SAMPLES, write_samples
from tests.support.run_fixtures import environment_with
from tests.support.sandbox_tables import prepare, write_rows_file, write_table
from tests.support.schemas.registry import all_schemas
from tests.support.scored_upstream import evaluate_upstream
from tests.support.server.judge import scripted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_vlmeval.records import DatasetInfo, JudgeQuestion, Scoring
    from pytest_vlmeval.sandbox.calls import ScoredDataset
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.schemas import Schema
    from tests.support.scored_upstream import Evaluated

    Upstream = Callable[[Schema, bool], Evaluated]

SCHEMAS = all_schemas()


def cases(schemas: Iterable[Schema]) -> list[object]:
    """Give each schema a case; those that need add-ons are marked."""
    return [
        pytest.param(
            schema,
            id=str(schema),
            marks=[pytest.mark.addons] if schema.class_name in ADDONS else [],
        )
        for schema in schemas
    ]


pytestmark = pytest.mark.slow
JUDGED = pytest.mark.parametrize("judged", [False, True], ids=["exact", "judged"])


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, run_cache: Path
) -> Mapping[str, DatasetInfo]:
    return load_catalog(sandbox_environment, run_cache)


@pytest.fixture(scope="module")
def upstream(
    request: pytest.FixtureRequest,
    catalog: Mapping[str, DatasetInfo],
    tmp_path_factory: pytest.TempPathFactory,
) -> Upstream:
    """Give what ms-vlmeval makes of a schema; all that are tested go at once.

    Of several processes of tests one evaluates them, and the others wait for it.
    """
    selected = {
        id(item.callspec.params["schema"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and "schema" in getattr(item, "callspec", item).__dict__.get("params", {})
    }
    by_addons: dict[frozenset[str], list[tuple[Schema, DatasetInfo, bool]]] = {}
    for schema in SCHEMAS:
        if id(schema) in selected:
            info = catalog[schema.dataset]
            for judged in (False, True):
                if judged or not schema.needs_judge:
                    cases = by_addons.setdefault(addons_for(info), [])
                    cases.append((schema, info, judged))
    found = {}
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    for addons, cases in by_addons.items():
        folder = shared / "-".join(["evaluated", *sorted(addons)])
        folder.mkdir(exist_ok=True)
        with waiting_lock(folder / ".lock", lambda: None):
            results = evaluate_upstream(environment_with(addons), cases, folder)
        for (schema, _, judged), result in zip(cases, results, strict=True):
            found[str(schema), judged] = result
    return lambda schema, judged: found[str(schema), judged]


# Its class has a second dataset, whose judge is shown images.
TEXTS_ONLY = "LiveMMBench_Creation"
SHOWN = [[["image", "0.png", "image/png"]]]


class ScriptedJudge:
    """Replies as a schema says, and counts."""

    def __init__(self, script: Sequence[tuple[str, str]]) -> None:
        self.script = script
        self.asked = 0
        self.shown = 0

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Give a reply to each question."""
        replies = []
        for question in questions:
            self.asked += 1
            self.shown += [image.name for image in question.images] == ["0.png"]
            text = scripted(question.prompt, self.script)
            replies.append(JudgeReply(number=self.asked, text=text))
        return replies


def prepare_schema(
    sandbox: Sandbox, schema: Schema, info: DatasetInfo, folder: Path
) -> PreparedDataset:
    """Write rows as a prepared dataset has them; make prompts only for their images."""
    if schema.opened:
        table = write_table(folder / f"{info.name}.tsv", schema.table)
        return prepare(replace(info, path=table, md5=None), sandbox, folder)
    rows = [
        {name: cell for name, cell in row.items() if name != "image"}
        for row in schema.table
    ]
    write_rows_file(folder, rows)
    # Where a judge is shown the images of a row.
    blank = dict.fromkeys(COLUMNS, None)
    write_samples(
        folder / SAMPLES,
        [{**blank, "index": str(row["index"]), "prompt": SHOWN} for row in rows],
    )
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
    )


def score_schema(
    sandbox: Sandbox,
    schema: Schema,
    info: DatasetInfo,
    folder: Path,
    judge: ScriptedJudge | None,
    scoring: Scoring = "published",
) -> ScoredDataset:
    """Score the answers of a schema as a run does."""
    prepared = prepare_schema(sandbox, schema, info, folder)
    answers = [(str(index), [said]) for index, said in schema.answers.items()]
    ask = None if judge is None else judge.ask
    return score_in_sandbox(sandbox, prepared, answers, judge=ask, scoring=scoring)


def test_schemas_fit_the_catalog(catalog: Mapping[str, DatasetInfo]) -> None:
    assert len(set(map(str, SCHEMAS))) == len(SCHEMAS)
    for schema in SCHEMAS:
        assert catalog[schema.dataset].class_name == schema.class_name
        if schema.dataset == "RefCOCO":
            continue  # its class names rows anew (dataset/refcoco.py:214)
        indexes = {str(row["index"]) for row in schema.rows}
        assert {str(index) for index in schema.answers} <= indexes, str(schema)


def test_what_is_run_as_it_is_has_a_table() -> None:
    own = {name for name, family in FAMILIES.items() if family.is_general}
    assert own <= {schema.class_name for schema in SCHEMAS}
    assert not own & REFUSED.keys()


@pytest.mark.parametrize("schema", cases(each for each in SCHEMAS if each.expects))
def test_what_a_class_returns_is_what_was_computed_by_hand(
    upstream: Upstream, schema: Schema
) -> None:
    found = upstream(schema, schema.needs_judge)
    assert found.error == ""
    metrics = flatten(found.result_of(schema))
    for name, value in schema.expects.items():
        assert metrics.get(name) == pytest.approx(value), name


@JUDGED
@pytest.mark.parametrize(
    "schema", cases(each for each in SCHEMAS if each.class_name in FAMILIES)
)
def test_our_metrics_are_those_of_the_class(
    sandbox_of: Callable[[str], Sandbox],
    catalog: Mapping[str, DatasetInfo],
    upstream: Upstream,
    tmp_path: Path,
    schema: Schema,
    judged: bool,
) -> None:
    sandbox, info = sandbox_of(schema.class_name), catalog[schema.dataset]
    judge = ScriptedJudge(schema.judge) if judged else None
    if schema.needs_judge and not judged:
        with pytest.raises(NeedsJudgeError):
            score_schema(sandbox, schema, info, tmp_path, judge)
        return
    theirs = upstream(schema, judged)
    assert theirs.error == ""
    ours = score_schema(sandbox, schema, info, tmp_path, judge)
    expected = flatten(theirs.result_of(schema))
    metrics = {
        name.removesuffix(" (exact matching)"): value
        for name, value in ours.metrics.items()
    }
    assert {name: metrics.get(name) for name in expected} == expected
    if judge is not None:
        assert judge.asked == theirs.asked
        shown = FAMILIES[schema.class_name].shown and schema.dataset != TEXTS_ONLY
        assert judge.shown == (judge.asked if shown else 0)


def schema_of(dataset: str) -> Schema:
    """Give the table of a dataset."""
    return next(each for each in SCHEMAS if each.dataset == dataset)


def test_some_of_the_rows_are_held_against_their_own_references(
    sandbox_of: Callable[[str], Sandbox],
    catalog: Mapping[str, DatasetInfo],
    tmp_path: Path,
) -> None:
    # GroundingME's class goes by the place of a row among all.
    schema = schema_of("GroundingME")
    last: dict[object, str] = {index: schema.answers[index] for index in (2, 3)}
    scored = score_schema(
        sandbox_of("GroundingME"),
        replace(schema, answers=last),
        catalog[schema.dataset],
        tmp_path,
        None,
    )
    assert scored.metrics["IoU"] == 0.5
    assert scored.metrics["Rejection_ACC@0.5"] == 1


def test_formulas_are_compared_in_corrected_scoring_only(
    sandbox_of: Callable[[str], Sandbox],
    catalog: Mapping[str, DatasetInfo],
    tmp_path: Path,
) -> None:
    schema = schema_of("MM-Math")
    published, corrected = (
        score_schema(
            sandbox_of("MMMath"),
            schema,
            catalog[schema.dataset],
            tmp_path,
            None,
            scoring,
        )
        for scoring in ("published", "corrected")
    )
    # One half is 0.5, which only corrected scoring finds.
    assert (published.value, published.scoring) == (25, "published")
    assert (corrected.value, corrected.scoring) == (50, "corrected")
