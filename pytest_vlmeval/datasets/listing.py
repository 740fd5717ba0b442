"""The datasets as a table or as JSON, for `pytest --vlm-list`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pytest_vlmeval.datasets.files import data_path, size_text
from pytest_vlmeval.datasets.hub import is_cached
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, Hub
from pytest_vlmeval.sandbox.scored import is_scored
from pytest_vlmeval.unscored import foresee

WIDTH = 120
JSON = "json"
COLUMNS = tuple("name family modality kind judge scored size disk source".split())
# A name is never cut, so that it can be copied; a longer one has a line of its own.
LONGEST_NAME = 32
LONGEST_FAMILY = 14


class Places(NamedTuple):
    """Where datasets are looked for on disk: the files, and the hubs' caches.

    `known` are all that there are, by name: those of a collection among them.
    """

    data_root: Path
    hubs: Sequence[Hub] = ()
    known: Mapping[str, DatasetInfo] = {}


def list_datasets(
    infos: Iterable[DatasetInfo], words: Sequence[str], places: Places
) -> str:
    """Give the datasets that all `words` fit, as a table; as JSON if one is `json`.

    A word fits if it is part of the name, family, kind or modality, in any case.
    Raises VlmEvalError when none fits.
    """
    infos = list(infos)
    places = places._replace(known={info.name: info for info in infos})
    filters = [word.lower() for word in words if word.lower() != JSON]
    found = [info for info in infos if _fits(info, filters)]
    if len(filters) < len(words):
        return json.dumps([_entry(info, places) for info in found], indent=1)
    if not found:
        raise VlmEvalError(
            f"--vlm-list={','.join(words)}: no dataset has all of these words in its "
            "name, family, kind or modality. Kinds are multiple_choice, yes_no, vqa, "
            "caption and other; modalities image, video and text."
        )
    return _table([_row(info, places) for info in found])


def _fits(info: DatasetInfo, filters: Sequence[str]) -> bool:
    texts = [info.name, info.family, info.kind, info.modality]
    return all(any(word in text.lower() for text in texts) for word in filters)


def _size_on_disk(info: DatasetInfo, data_root: Path) -> int | None:
    path = data_path(info, data_root)
    return path.stat().st_size if path.is_file() else None


def _entry(info: DatasetInfo, places: Places) -> dict[str, Any]:
    size = _size_on_disk(info, places.data_root)
    return {
        "name": info.name,
        "family": info.family,
        "modality": info.modality,
        "kind": info.kind,
        "judge": info.judge,
        "has_references": info.has_references,
        "scored": how_scored(info, places.known),
        "not_scored_because": _why_unscored(info, places.known),
        "size_bytes": info.size_bytes if size is None else size,
        "on_disk": _is_on_disk(info, size, places.hubs),
        "source": info.source or None,
        "url": info.url,
        "md5": info.md5,
        "versions": [asdict(each) for each in info.versions],
        "homepage": info.homepage,
        "licence": info.licence,
    }


def _is_on_disk(
    info: DatasetInfo, size: int | None, hubs: Sequence[Hub]
) -> bool | None:
    """Tell whether a dataset's files are there; None where it is not known which."""
    if not info.repository:
        unknown = info.modality == "video" or not (info.url or info.path)
        return None if unknown else size is not None
    return is_cached(info.repository, hubs) and (info.url is None or size is not None)


def _row(info: DatasetInfo, places: Places) -> tuple[str, ...]:
    entry = _entry(info, places)
    size = entry["size_bytes"]
    return (
        info.name,
        _cut(info.family, LONGEST_FAMILY),
        info.modality,
        info.kind,
        info.judge or "?",
        how_scored(info, places.known),
        "?" if size is None else size_text(size),
        _yes_no(entry["on_disk"]),
        info.source or "?",
    )


def how_scored(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str:
    """Say in a word or two whether there will be a score: yes, or what it lacks.

    Of a collection, what the first of its datasets says that lacks something.
    """
    members = [known[name] for name in info.members if name in known]
    if members:
        found = [how_scored(each, known) for each in members]
        return next((each for each in found if each != "yes"), "yes")
    if not is_scored(info):
        return "not yet"
    if info.has_references is False:
        return "no refs"
    return "by judge" if info.judge == "required" else "yes"


def _why_unscored(info: DatasetInfo, known: Mapping[str, DatasetInfo]) -> str | None:
    members = [known[name] for name in info.members if name in known]
    reasons = map(foresee, members or [info])
    return next((why for why in reasons if why is not None), None)


def _yes_no(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    widths[0] = min(widths[0], LONGEST_NAME)
    widths[-1] = WIDTH - sum(widths[:-1]) - 2 * len(widths[:-1])
    lines = []
    for name, *cells in (COLUMNS, *rows):
        if len(name) > LONGEST_NAME:
            lines.append(name)
            name = ""
        padded = [
            _cut(text, width).ljust(width)
            for text, width in zip((name, *cells), widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    on_disk = sum(row[COLUMNS.index("disk")] == "yes" for row in rows)
    noun = "dataset" if len(rows) == 1 else "datasets"
    lines += [
        "",
        f"{len(rows)} {noun}, {on_disk} on disk. scored: by judge: with --vlm-judge "
        "only; no refs: no reference answers; not yet:",
        "no scoring here. Those two are only asked by --vlm-mode=infer. ?: not known "
        "before a download. --vlm-list=json has more.",
    ]
    return "\n".join(lines)
