"""Pictures for a report: each content once, as a downscaled WebP, within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_vlmeval.prompts import parts_of
from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport

MEGABYTE = 1_000_000
THREADS = 4
# So many pictures are encoded to tell how large all of them would be.
PROBED = 12


class Tier(NamedTuple):
    """How large and how good pictures are: longest side in pixels, WebP's quality."""

    side: int
    quality: int


TIERS = (Tier(1024, 80), Tier(768, 75), Tier(512, 65), Tier(384, 55))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of a report, in base64, by their file names.

    `side` is the longest side in pixels. `left_out` counts those that the budget
    had no room for, `unreadable` those that could not be opened.
    """

    found: Mapping[str, str]
    side: int
    left_out: int = 0
    unreadable: int = 0


def embed_pictures(report: RunReport, max_mb: float) -> Pictures:
    """Encode the pictures of a run; those of samples to look at come first.

    `max_mb` (10^6 bytes) bounds what they add to the file. The largest tier is taken
    in which all have room, else the largest in which those come in that belong to
    samples that are not right.
    """
    first, rest = _by_urgency(report)
    budget = max_mb * MEGABYTE
    tier = _choose_tier(first, [*first, *rest], budget)
    found: dict[str, str] = {}
    unreadable = 0
    used = 0
    files = [*first, *rest]
    for file, data in _encode_all(files, tier):
        if data is None:
            unreadable += 1
        elif used + len(data) > budget:
            break
        else:
            used += len(data)
            found[file.name] = data
    left_out = len(files) - len(found) - unreadable
    return Pictures(
        found=found, side=tier.side, left_out=left_out, unreadable=unreadable
    )


def _by_urgency(report: RunReport) -> tuple[list[Path], list[Path]]:
    """Return the files of samples that are not right, and all others, each once."""
    first: dict[str, Path] = {}
    rest: dict[str, Path] = {}
    for dataset in report.datasets:
        for sample in dataset.samples:
            right = sample.outcome == "correct" and not sample.flip
            for file in _files(dataset, sample):
                (rest if right else first).setdefault(file.name, file)
    return list(first.values()), [rest[name] for name in rest if name not in first]


def _files(dataset: DatasetReport, sample: SampleReport) -> Iterator[Path]:
    if dataset.folder is not None:
        for part in parts_of(sample.prompt):
            if part.kind == "image":
                yield dataset.folder / "media" / part.media


def _choose_tier(first: Sequence[Path], every: Sequence[Path], budget: float) -> Tier:
    for files in (every, first):
        for tier in TIERS:
            if _estimate(files, tier) <= budget:
                return tier
    return TIERS[-1]


def _estimate(files: Sequence[Path], tier: Tier) -> float:
    """Tell from some of the files how large all of them would be."""
    probed = files[:: max(1, len(files) // PROBED)]
    sizes = [len(data) for _, data in _encode_all(probed, tier) if data is not None]
    return sum(sizes) / len(sizes) * len(files) if sizes else 0.0


def _encode_all(files: Sequence[Path], tier: Tier) -> Iterator[tuple[Path, str | None]]:
    # In slices, so that no more is encoded than there is room for.
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), 8 * THREADS):
            part = files[start : start + 8 * THREADS]
            yield from zip(
                part, threads.map(lambda file: encode(file, tier), part), strict=True
            )


def encode(file: Path, tier: Tier) -> str | None:
    """Return a picture as WebP in base64, never enlarged; None if it has no pixels."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            # JPEG decodes at a fraction of its size, which saves most of the time.
            image.draft("RGB", (tier.side, tier.side))
            mode = "RGBA" if image.has_transparency_data else "RGB"
            small = image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((tier.side, tier.side), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=tier.quality, method=2)
    return base64.b64encode(out.getvalue()).decode("ascii")
