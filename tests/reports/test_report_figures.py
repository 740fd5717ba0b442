"""What a report holds of a run: figures, intervals, and images made small enough."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pytest_vlmeval.records import wilson
from pytest_vlmeval.reports.comparison import format_comparison
from pytest_vlmeval.reports.html import embed_images
from pytest_vlmeval.reports.record import RunReport, load_run
from pytest_vlmeval.reports.summary import LEVEL, find_share, percentiles, summarize
from pytest_vlmeval.run.store import Store
from tests.support.report_store import fill_store

COUNT = 120


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunReport]:
    """Give an artificial run with 24 images."""
    folder = tmp_path_factory.mktemp("report")
    run_id = fill_store(folder, folder / "cache", COUNT, images=24)
    store = Store(folder)
    yield load_run(store, folder / "cache", run_id)
    store.close()


def test_wilson_interval_of_a_published_example() -> None:
    # R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998,
    # doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I.
    for part, whole, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        bounds = wilson(part / whole, whole, 0.975)
        assert tuple(round(each, 4) for each in bounds) == (low, high)
    # Reports show the level of gates: each bound holds with 95 %.
    share = find_share(81, 263)
    assert (share.low, share.high) == wilson(81 / 263, 263, 0.95)
    assert LEVEL == 0.9


def test_percentiles_by_the_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles(list(range(1, 101))) == {50: 50, 95: 95, 99: 99}
    assert percentiles([7]) == {50: 7, 95: 7, 99: 7}


def test_figures_of_a_dataset(report: RunReport) -> None:
    (dataset,) = report.datasets
    summary = summarize(dataset)
    assert sum(summary.counts.values()) == COUNT
    assert summary.counts["failed"] == 1
    assert summary.cut_off == 1
    assert sum(bin.count for bin in summary.lengths) == COUNT - 2
    assert sum(summary.confusion.values()) == COUNT
    assert [each.share.whole for each in summary.categories] == [30, 30, 30, 30]
    assert summary.interval is not None
    low, high = summary.interval
    assert dataset.score is not None
    assert low < dataset.score.value < high


def webp(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "WEBP"
    return image


def test_images_are_embedded_once_and_made_smaller(report: RunReport) -> None:
    images = embed_images(report, 30)
    assert len(images.found) == 24
    assert (images.left_out, images.unreadable) == (0, 0)
    assert {webp(each).size for each in images.found.values()} == {(448, 336)}
    size = sum(map(len, images.found.values()))
    fewer = embed_images(report, size / 1e6 * 0.6)
    assert fewer.side == 384
    assert len(fewer.found) == 24
    assert {webp(each).size for each in fewer.found.values()} == {(384, 288)}


def test_without_room_what_is_not_right_keeps_its_images(report: RunReport) -> None:
    (dataset,) = report.datasets
    # An image of its own for each sample, so that it is clear whose it is.
    samples = [each for each in dataset.samples if each.index != "5"][:24]
    shown = replace(report, datasets=(replace(dataset, samples=tuple(samples)),))
    wanted = {each.prompt[0][0].media for each in samples if each.outcome != "correct"}
    whole = embed_images(shown, 30).found
    size = sum(map(len, whole.values()))
    images = embed_images(shown, size / 1e6 * 0.4)
    assert 4 < len(wanted) < len(images.found) < len(whole)
    assert set(list(images.found)[: len(wanted)]) == wanted
    assert images.left_out == len(whole) - len(images.found)
    assert sum(map(len, images.found.values())) <= size * 0.4
    assert embed_images(shown, 0).left_out == len(whole)


def test_a_image_that_cannot_be_read_is_counted(
    report: RunReport, tmp_path: Path
) -> None:
    (tmp_path / "media").mkdir()
    (dataset,) = report.datasets
    sample = dataset.samples[0]
    (tmp_path / "media" / sample.prompt[0][0].media).write_bytes(b"GIF89a nothing")
    broken = replace(dataset, folder=tmp_path, samples=(sample,))
    images = embed_images(replace(report, datasets=(broken,)), 30)
    assert (len(images.found), images.unreadable, images.left_out) == (0, 1, 0)


def test_runs_without_common_samples(report: RunReport) -> None:
    assert format_comparison(replace(report, compared_with="x (1)")) == [
        f"artificial ({report.run_id}) against x (1)",
        "",
        "Artificial: the other run has none of its samples",
    ]
