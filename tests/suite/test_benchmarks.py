"""The shipped benchmarks: every dataset of the card once, marked for what it is."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_vlmeval import Benchmark
from pytest_vlmeval.datasets.catalog import CORE, load_card, load_catalog
from pytest_vlmeval.datasets.unscored import foresee
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings.option import OTHERS
from pytest_vlmeval.suite import MARKERS
from tests.support.upstream_tables import DATASETS as SCORED
from tests.support.upstream_tables import SHIPPED

MODULES = sorted((Path(__file__).parents[2] / "benchmarks").glob("test_*.py"))
DEMO = {"DemoChoice", "DemoYesNo", "DemoOpen"}


def marked_datasets() -> dict[str, set[str]]:
    """Return the markers of every dataset in the benchmarks; each stands there once."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        module = importlib.import_module(f"benchmarks.{path.stem}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Benchmark) and cls is not Benchmark:
                marks = {mark.name for mark in getattr(cls, "pytestmark", ())}
                for name in set(cls.datasets) - {OTHERS}:
                    assert name not in found, name
                    found[name] = marks
    return found


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, run_cache: Path
) -> Mapping[str, DatasetInfo]:
    """Give the catalog of the installed ms-vlmeval."""
    return load_catalog(sandbox_environment, run_cache)


def test_every_dataset_of_the_card_is_there() -> None:
    assert marked_datasets().keys() - DEMO == set(load_card().by_name)
    assert len(load_card().by_name) == 65


def test_shipped_thresholds_are_of_these_datasets_and_name_their_sources(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    SHIPPED.check("qwen-vl-chat", catalog)
    found = {
        name: SHIPPED.of("qwen-vl-chat", name)
        for name in marked_datasets()
        if SHIPPED.of("qwen-vl-chat", name)
    }
    assert len(found) == 9
    for name, thresholds in found.items():
        # Else a benchmark that leaves it out would end the command.
        assert foresee(catalog[name]) is None, name
        for each in thresholds:
            assert re.search(r": https://\S+$", each.source), name
            assert each.rule == "confident-below"
            assert each.published, name
            # A score goes to 100; further metrics are looked at where they are made.
            assert (name in SCORED) if each.metric else (1 < each.minimum < 100)


def test_core_is_the_usual_eight() -> None:
    assert {
        name for name, marks in marked_datasets().items() if "core" in marks
    } == CORE
    assert len(CORE) == 8


def test_markers_say_what_the_catalog_says(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    for name, marks in marked_datasets().items():
        if name in DEMO:
            continue
        info = catalog[name]
        assert marks <= set(MARKERS), name
        assert marks & {"image", "video"} == {info.modality}, name
        kinds = {"multiple_choice", "yes_no", "vqa", "caption"}
        assert marks & kinds == {info.kind}, name
        assert ("needs_judge" in marks) == (info.judge == "required"), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_module_says_what_it_measures_and_where_it_comes_from(path: Path) -> None:
    text = inspect.getdoc(importlib.import_module(f"benchmarks.{path.stem}"))
    assert text is not None
    assert "arXiv" in text or path.stem in {
        "test_demo",  # drawn by this project
        "test_named",  # whatever the user names
        "test_ocrvqa",  # ICDAR 2019
        "test_realworldqa",  # published by its makers
    }
