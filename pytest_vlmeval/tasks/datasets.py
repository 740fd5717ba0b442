"""The datasets that a task file names, and how their videos are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_vlmeval.tasks.fields import DatasetFields
from pytest_vlmeval.tasks.reading import Reading, shown
from pytest_vlmeval.tasks.tree import kind_of

SUBTITLED = "Video-MME"
# The presets of ms-vlmeval that show subtitles (dataset/video_dataset_config.py).
SUBTITLES = {"8frame": "Video-MME_8frame_subs", "0.5fps": "Video-MME_0.5fps_subs"}


def check_names(reading: Reading, names: object, place: str) -> list[str]:
    """Return the names of a list of datasets, each once."""
    listed = [names] if isinstance(names, str) else names
    assert isinstance(listed, list)
    if not listed:
        raise reading.error(place, " is empty: name a dataset.")
    for number, name in enumerate(listed):
        if not isinstance(name, str) or not name.strip():
            raise reading.error(
                f"{place}[{number}]",
                f"{shown(name)} is not a dataset's name. `pytest --vlm-list` "
                "shows them all.",
            )
    return list(dict.fromkeys(name.strip() for name in listed))


def take_frames(
    reading: Reading, given: Mapping[str, Any], names: Sequence[str], place: str
) -> list[str]:
    """Read how videos are shown; return the names with presets for subtitles."""
    fps, nframe = given.get("fps"), given.get("nframe")
    by_rate = _is_above_0(reading, fps, f"{place}fps")
    if by_rate:
        if nframe is not None:
            reading.remark(f"{place}nframe", "fps says how videos are shown")
        nframe = None
    else:
        fps = None
        nframe = nframe if _is_above_0(reading, nframe, f"{place}nframe") else None
    if not given.get("use_subtitle"):
        _set_frames(reading, nframe, fps, place)
        return list(names)
    if SUBTITLED not in names:
        reading.remark(f"{place}use_subtitle", f"only {SUBTITLED} has subtitles")
        _set_frames(reading, nframe, fps, place)
        return list(names)
    shown_as = f"{float(fps or 0):g}fps" if by_rate else f"{nframe or 8}frame"
    if shown_as not in SUBTITLES:
        raise reading.error(
            f"{place}use_subtitle",
            f" = true is not supported with {shown_as}: subtitles are shown by the "
            f"presets {' and '.join(SUBTITLES.values())}. Give nframe: 8 or fps: 0.5.",
        )
    others = [name for name in names if name != SUBTITLED]
    if others:
        _set_frames(reading, nframe, fps, place)
    return [SUBTITLES[shown_as] if name == SUBTITLED else name for name in names]


def _set_frames(reading: Reading, nframe: Any, fps: Any, place: str) -> None:
    if fps is not None:
        reading.set("fps", str(fps), f"{place}fps", fps)
    if nframe is not None:
        reading.set("nframe", str(nframe), f"{place}nframe", nframe)


def _is_above_0(reading: Reading, value: Any, field: str) -> bool:
    if value is None:
        return False
    try:
        return float(value) > 0
    except ValueError:
        raise reading.error(
            field, f"{shown(value)} is not accepted: it takes a number."
        ) from None


def take_mapped(
    reading: Reading, data: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Return the datasets of a configuration of VLMEvalKit, and their classes.

    Raises VlmEvalError where they are to be shown in different ways.
    """
    if not data:
        raise reading.error("data", " is empty: name a dataset.")
    found: list[str] = []
    classes: dict[str, str] = {}
    ways: dict[str, str] = {}
    for name, entry in data.items():
        place = f"data.{name}"
        if not isinstance(entry, dict):
            raise reading.error(place, f" is {kind_of(entry)}, and takes a mapping.")
        fields = dict(entry)
        class_name = fields.pop("class", None)
        if class_name is not None and not isinstance(class_name, str):
            raise reading.error(f"{place}.class", " takes the name of a class.")
        given = reading.take(DatasetFields, fields, f"{place}.")
        names = check_names(reading, [given.get("dataset", name)], place)
        way = " and ".join(
            f"{name}{shown(given[name])}" for name in ("nframe", "fps") if name in given
        )
        if way and ways.setdefault("way", way) != way:
            raise reading.error(
                place,
                f" shows videos by {way}, and another dataset by {ways['way']}: a run "
                "has one way for all. Make it two files, or name presets, such as "
                "Video-MME_64frame.",
            )
        names = take_frames(reading, given, names, f"{place}.")
        found += names
        if class_name:
            classes[names[0]] = class_name
    return list(dict.fromkeys(found)), classes
