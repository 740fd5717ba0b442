"""From a dataset's files to samples on disk, once for all runs, and subsets of them."""

from __future__ import annotations

import dataclasses
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.download import digest
from pytest_vlmeval.datasets.hub import fetch_files
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import PreparedDataset, Sample, parts_of, read_prompt
from pytest_vlmeval.sandbox.calls import prepare_in_sandbox
from pytest_vlmeval.sandbox.environment import HeldFolder, sweep
from pytest_vlmeval.sandbox.rows import (
    COLUMNS,
    FILE,
    SAMPLES,
    count_samples,
    read_samples_rows,
    read_samples_table,
    read_texts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.datasets.hub import DatasetFiles
    from pytest_vlmeval.records import DatasetInfo, Turn
    from pytest_vlmeval.sandbox.process import Progress, Sandbox


DEFAULT_FRAMES = 8


def is_preset(info: DatasetInfo) -> bool:
    """Return whether a dataset's name fixes how its videos are shown."""
    return "dataset" in info.settings


def show_videos(
    info: DatasetInfo, nframe: int | None, fps: float | None
) -> DatasetInfo:
    """Return a video dataset with its frames' settings; a preset keeps its own."""
    if info.modality != "video" or is_preset(info):
        return info
    frames = {"nframe": nframe or DEFAULT_FRAMES} if fps is None else {"fps": fps}
    return dataclasses.replace(info, settings={**info.settings, **frames})


def check_frames_apply(
    infos: Iterable[DatasetInfo], nframe: int | None, fps: float | None
) -> None:
    """Raise VlmEvalError where options of frames are given and only presets chosen."""
    videos = [info for info in infos if info.modality == "video"]
    option = f"--vlm-nframe={nframe}" if nframe else f"--vlm-fps={fps or 0:g}"
    if (nframe or fps) and videos and all(map(is_preset, videos)):
        names = ", ".join(info.name for info in videos)
        raise VlmEvalError(
            f"{option} changes nothing: the name of a preset says how its videos are "
            f"shown ({names}). Leave the option out, or choose "
            f"{videos[0].settings['dataset']}."
        )


def describe_videos(info: DatasetInfo, video_url: bool) -> tuple[str, ...]:
    """Say for a score how videos were shown; nothing for other datasets."""
    if info.modality != "video":
        return ()
    if video_url:
        return ("videos sent as their files",)
    fps = info.settings.get("fps", -1)
    if isinstance(fps, int | float) and fps > 0:
        noun = "frame" if fps == 1 else "frames"
        return (f"{fps:g} {noun} per second of video",)
    count = info.settings.get("nframe", 0)
    return (f"{count} {'frame' if count == 1 else 'frames'} per video",)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What names and sorts a sample, without its prompt."""

    index: str
    category: str | None
    group: str | None
    reference: str | None


def read_samples(prepared: PreparedDataset) -> list[Sample]:
    """Return all samples in the dataset's order."""
    return read_samples_of(prepared.folder, prepared.info.name)


def read_samples_of(folder: Path, name: str) -> list[Sample]:
    """Return all samples of the dataset that was prepared in a folder."""
    rows = (
        dict(zip(COLUMNS, row, strict=True))
        for row in read_samples_rows(folder, COLUMNS)
    )
    return [
        Sample(dataset=name, **row | {"prompt": read_prompt(row["prompt"])})
        for row in rows
    ]


def read_whole_samples(
    prepared: PreparedDataset, indexes: Collection[str]
) -> Iterator[Sample]:
    """Yield the samples of these indexes in the dataset's order, each with its row."""
    texts = read_texts(prepared.folder / FILE)
    places = {index: place for place, index in enumerate(texts["index"])}
    for values in read_samples_rows(prepared.folder, COLUMNS):
        cells = dict(zip(COLUMNS, values, strict=True))
        if (index := cells["index"]) not in indexes:
            continue
        place = places.get(index)
        row = {} if place is None else {name: it[place] for name, it in texts.items()}
        prompt = read_prompt(cells["prompt"])
        yield Sample(
            dataset=prepared.info.name, **cells | {"prompt": prompt, "row": row}
        )


def read_references(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each sample's index, with what its answer is compared with."""
    for index, reference in read_samples_rows(folder, ("index", "reference")):
        yield sys.intern(index), reference


class Prompts:
    """The prompts of a prepared dataset, by index, as the JSON they are kept in."""

    def __init__(self, prepared: PreparedDataset) -> None:
        table = read_samples_table(prepared.folder, ("index", "error", "prompt"))
        indexes = map(sys.intern, table["index"].to_pylist())
        self._rows = {index: row for row, index in enumerate(indexes)}
        self._errors = table["error"]
        self._prompts = table["prompt"]

    def text(self, index: str) -> str:
        """Return what names all of a prompt, its media by their content; "" if none."""
        row = self._rows[index]
        return "" if self._errors[row].is_valid else str(self._prompts[row])

    def count_media(self, index: str) -> tuple[int, int]:
        """Return how many images and how many videos a prompt has."""
        text = self.text(index)
        # In a JSON text quotes stand like this only where a part begins.
        return text.count('["image", "'), text.count('["video", "')

    def turns(self, index: str) -> tuple[Turn, ...]:
        """Return a prompt; `VlmEvalError` for a row that has none."""
        row = self._rows[index]
        if self._errors[row].is_valid:
            raise VlmEvalError(str(self._errors[row]))
        return read_prompt(str(self._prompts[row]))


def read_index(prepared: PreparedDataset) -> list[IndexRow]:
    """Return what names the samples, in the dataset's order, without their prompts."""
    # A category is that of thousands of samples: kept once.
    once: dict[str | None, str | None] = {}
    return [
        IndexRow(sys.intern(index), *(once.setdefault(text, text) for text in rest))
        for index, *rest in read_samples_rows(prepared.folder, IndexRow.__slots__)
    ]


def read_prompts(prepared: PreparedDataset) -> Iterator[str]:
    """Yield what names all of each prompt, in the dataset's order; "" for none."""
    for error, prompt in read_samples_rows(prepared.folder, ("error", "prompt")):
        yield "" if error is not None else prompt


def read_shown(prepared: PreparedDataset) -> list[frozenset[int]]:
    """Return the images and videos that each sample shows, by number, in order."""
    numbers: dict[str, int] = {}
    # The same for samples that show the same: kept once.
    once: dict[frozenset[int], frozenset[int]] = {}
    found = []
    for prompt in read_prompts(prepared):
        shown = frozenset(
            numbers.setdefault(part.media, len(numbers))
            for part in parts_of(read_prompt(prompt or "[]"))
            if part.media
        )
        found.append(once.setdefault(shown, shown))
    return found


# Counts changes in what is written, so that older folders are not read.
FORMAT = 4
# Ends the name of a folder that is being filled, before what tells it from others.
PART = ".part-"


def prepare_dataset(
    info: DatasetInfo,
    access: FileAccess,
    *,
    sandbox: Sandbox,
    sandbox_fingerprint: str,
    video_url: bool = False,
    on_progress: Progress | None = None,
) -> PreparedDataset:
    """Return the dataset ready to be asked, without the sandbox if it was before.

    `video_url` keeps videos where else their frames are cut. Raises VlmEvalError for
    a file that is missing, not the published one, or no table that ms-vlmeval reads.
    """
    files = fetch_files(info, sandbox, access)
    key = _key(info, files, sandbox_fingerprint, video_url)
    folder = _place(access.cache_dir, info.name, key)
    if not folder.is_dir():
        _fill(folder, info, files, sandbox, video_url, on_progress)
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint=f"{info.name}-{key}",
        checksum=files.checksum,
        modified=files.modified,
        sample_count=count_samples(folder),
        version=info.revision or info.name_version(files.checksum),
        notes=describe_videos(info, video_url),
    )


def find_prepared(cache_dir: Path, name: str, fingerprint: str) -> Path | None:
    """Return the folder of a dataset that was prepared before; None if it is gone."""
    folder = _place(cache_dir, name, fingerprint.removeprefix(f"{name}-"))
    return folder if (folder / SAMPLES).is_file() else None


def _place(cache_dir: Path, name: str, key: str) -> Path:
    return cache_dir / "prepared" / name / key


def _key(
    info: DatasetInfo, files: DatasetFiles, sandbox_fingerprint: str, video_url: bool
) -> str:
    parts: list[object] = [
        FORMAT,
        info.class_name,
        info.module,
        files.checksum,
        sandbox_fingerprint,
    ]
    if files.content:
        parts.append(files.content)
    if info.modality == "video":
        parts += [sorted(info.settings.items()), video_url]
    return digest(parts)[:16]


def _fill(
    folder: Path,
    info: DatasetInfo,
    files: DatasetFiles,
    sandbox: Sandbox,
    video_url: bool,
    on_progress: Progress | None,
) -> None:
    """Write the folder, whole or not at all; raises VlmEvalError."""
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.is_dir():
                return
            # What killed processes left of any dataset takes as much space as it does.
            sweep(folder.parent.parent, f"*/.*{PART}*")
            with HeldFolder(f".{folder.name}{PART}", folder.parent) as part:
                if not prepare_in_sandbox(
                    sandbox,
                    info,
                    files.table,
                    part,
                    on_progress,
                    shelf=files.shelf,
                    video_url=video_url,
                ):
                    raise VlmEvalError(f"{info.name}: {files.place} has no row to ask.")
                part.chmod(0o755)
                part.rename(folder)
    except OSError as error:
        raise VlmEvalError(
            f"{info.name} cannot be prepared in {folder.parent}: {error.strerror}. "
            "--vlm-cache-dir takes another folder."
        ) from error


def read_splits(prepared: PreparedDataset) -> dict[str, str]:
    """Return the split of each sample; empty where the dataset has none."""
    texts = read_texts(prepared.folder / FILE, ("index", "split"))
    if "split" not in texts:
        return {}
    pairs = zip(texts["index"], texts["split"], strict=True)
    return {index: split for index, split in pairs if split}


# Samples that are judged together: a circular question, a pair, a figure; mostly one.
Unit = list[IndexRow]


def take_first(rows: Sequence[IndexRow], count: int) -> list[IndexRow]:
    """Return the first `count` samples, and the rest of the last one's group."""
    taken: list[Unit] = []
    size = 0
    for unit in _units(rows):
        if size >= count:
            break
        taken.append(unit)
        size += len(unit)
    return _in_order(rows, taken)


def draw(rows: Sequence[IndexRow], count: int, seed: int) -> list[IndexRow]:
    """Draw about `count` samples at random, each category by its share.

    Groups stay whole, so a few more than `count` may come. The same rows, count and
    seed give the same samples, in the dataset's order.
    """
    units = _units(rows)
    if count >= len(rows):
        return list(rows)
    categories: dict[str | None, list[Unit]] = {}
    for unit in units:
        categories.setdefault(unit[0].category, []).append(unit)
    wanted = _shares([sum(map(len, each)) for each in categories.values()], count)
    generator = random.Random(seed)
    drawn: list[Unit] = []
    for members, share in zip(categories.values(), wanted, strict=True):
        size = 0
        for unit in generator.sample(members, len(members)):
            if size >= share:
                break
            drawn.append(unit)
            size += len(unit)
    return _in_order(rows, drawn)


def shuffle(rows: Sequence[IndexRow], seed: int) -> list[IndexRow]:
    """Return the samples in a random order in which groups stay whole."""
    units = _units(rows)
    random.Random(f"order {seed}").shuffle(units)
    return [row for unit in units for row in unit]


def _units(rows: Sequence[IndexRow]) -> list[Unit]:
    """Return the groups in the order of their first samples."""
    units: dict[tuple[bool, str], Unit] = {}
    for row in rows:
        alone = row.group is None
        units.setdefault((alone, row.group or row.index), []).append(row)
    return list(units.values())


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide `count` by `sizes`, the largest remainders rounded up (Hamilton)."""
    total = sum(sizes)
    shares = [count * size // total for size in sizes]
    by_remainder = sorted(
        range(len(sizes)), key=lambda i: (-(count * sizes[i] % total), i)
    )
    for position in by_remainder[: count - sum(shares)]:
        shares[position] += 1
    return shares


def _in_order(rows: Sequence[IndexRow], units: Sequence[Unit]) -> list[IndexRow]:
    chosen = {row.index for unit in units for row in unit}
    return [row for row in rows if row.index in chosen]
