"""What was prepared of a dataset, read from its folder."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.prompts import Sample, parts_of, read_prompt
from pytest_vlmeval.sandbox.rows import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow.parquet as pq

    from pytest_vlmeval.prompts import Turn
    from pytest_vlmeval.records import PreparedDataset

SAMPLES = "samples.parquet"
COLUMNS = ("index", "category", "group", "reference", "error", "prompt")
_REFERENCES = ("index", "reference")
# Rows that are written, or made Python objects, at once.
AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What names and sorts a sample, without its prompt."""

    index: str
    category: str | None
    group: str | None
    reference: str | None


def read_samples(prepared: PreparedDataset) -> list[Sample]:
    """Give all samples in the dataset's order."""
    return read_samples_of(prepared.folder, prepared.info.name)


def read_samples_of(folder: Path, name: str) -> list[Sample]:
    """Give all samples of the dataset that was prepared in a folder."""
    return [
        Sample(
            dataset=name,
            index=index,
            category=category,
            group=group,
            reference=reference,
            error=error,
            prompt=read_prompt(prompt),
        )
        for index, category, group, reference, error, prompt in _rows(folder, COLUMNS)
    ]


def read_references(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Give each sample's index, with what its answer is compared with."""
    for index, reference in _rows(folder, _REFERENCES):
        yield sys.intern(index), reference


class Prompts:
    """The prompts of a prepared dataset, by index, as the JSON they are kept in."""

    def __init__(self, prepared: PreparedDataset) -> None:
        with _samples(prepared.folder) as file:
            columns = ["index", "error", "prompt"]
            table = file.read(columns, use_threads=False).combine_chunks()
        indexes = map(sys.intern, table["index"].to_pylist())
        self._rows = {index: row for row, index in enumerate(indexes)}
        self._errors = table["error"]
        self._prompts = table["prompt"]

    def text(self, index: str) -> str:
        """Return what names all of a prompt, its media by their content; "" if none."""
        row = self._rows[index]
        return "" if self._errors[row].is_valid else str(self._prompts[row])

    def count_media(self, index: str) -> tuple[int, int]:
        """Return how many pictures and how many videos a prompt has."""
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
    """Give what names the samples, in the dataset's order, without their prompts."""
    # A category is that of thousands of samples: kept once.
    once: dict[str | None, str | None] = {}
    return [
        IndexRow(sys.intern(index), *(once.setdefault(text, text) for text in rest))
        for index, *rest in _rows(prepared.folder, IndexRow.__slots__)
    ]


def read_prompts(prepared: PreparedDataset) -> Iterator[str]:
    """Give what names all of each prompt, in the dataset's order; "" for none."""
    for error, prompt in _rows(prepared.folder, ("error", "prompt")):
        yield "" if error is not None else prompt


def read_shown(prepared: PreparedDataset) -> list[frozenset[int]]:
    """Give the pictures and videos that each sample shows, by number, in order."""
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


def count_samples(folder: Path) -> int:
    import pyarrow.parquet as pq

    with readable(folder / SAMPLES):
        return int(pq.read_metadata(folder / SAMPLES).num_rows)


def _rows(folder: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    with _samples(folder) as file:
        parts = file.iter_batches(AT_ONCE, columns=list(columns), use_threads=False)
        for part in parts:
            yield from zip(
                *(column.to_pylist() for column in part.columns), strict=True
            )


@contextmanager
def _samples(folder: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Arrow's own memory, in huge pages, would cost 28 MB; threads and the machinery of
    # data sets 50.
    pa.set_memory_pool(pa.system_memory_pool())
    path = folder / SAMPLES
    with (
        readable(path),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        yield file
