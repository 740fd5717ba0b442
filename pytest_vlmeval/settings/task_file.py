"""Task files of EvalScope and VLMEvalKit, read into the options of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.settings.groups import EXACT_MATCHING, OFFICIAL, find_secret
from pytest_vlmeval.settings.option import ApiKey, list_datasets
from pytest_vlmeval.settings.task_fields import (
    MAPPING,
    NATIVE,
    SECRET,
    ApiModel,
    Becomes,
    DatasetFields,
    EvalConfig,
    EvalScopeTask,
    Fate,
    Idle,
    LocalModel,
    Refused,
    Task,
    TaskValue,
    VlmevalkitConfig,
    kind_of,
    read_json_tree,
    read_tree,
)

SHOWN_TEXT = 80


def fates_of(fields: type[BaseModel]) -> dict[str, Fate]:
    """Return what becomes of each field, in the order of the table."""
    return {
        name: next(each for each in info.metadata if isinstance(each, Fate))
        for name, info in fields.model_fields.items()
    }


def shown(value: object) -> str:
    """Say of a value what a message may: a number as it is, of others the kind.

    A key may stand in any place, if in a wrong one.
    """
    if isinstance(value, bool | int | float):
        return f" = {json.dumps(value)}"[:SHOWN_TEXT]
    return f" ({kind_of(value)})"


class Reading:
    """Gathers the options, keys and remarks of a file whose name is `path`.

    What names a dict in its place is a text.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.values: dict[str, TaskValue] = {}
        self.keys: dict[str, str] = {}
        self.remarks: list[str] = []

    def error(self, field: str, text: str) -> VlmEvalError:
        """Make the error of a field."""
        return VlmEvalError(f"{self.path}: {field}{text}")

    def take(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> dict[str, Any]:
        """Read a mapping that lies at `place`; return what is to be read further.

        Those are its fields that stand for options only together, and those that no
        table has, where that is allowed.
        """
        self._check(fields, given, place)
        fates = fates_of(fields)
        left: dict[str, Any] = {}
        seen: set[str] = set()
        # In the order of the table: the first field of an option counts.
        for name in [*(name for name in fates if name in given), *given]:
            value, fate = given[name], fates.get(name)
            if value is None or name in seen:
                continue
            seen.add(name)
            field = f"{place}{name}"
            if isinstance(fate, Becomes):
                self.set(fate.option, fate.read(value), field, value)
            elif isinstance(fate, Refused):
                if value not in fate.unless:
                    raise self.error(
                        field,
                        f"{shown(value)} is not supported: {fate.reason}. "
                        "Leave it out.",
                    )
            elif isinstance(fate, Idle):
                self.idle(field, fate, value)
            else:
                left[name] = value
        return left

    def idle(self, field: str, fate: Idle, value: object) -> None:
        """Explain that a field changes nothing, unless its value asks for nothing."""
        if not any(value is each or value == each for each in fate.unless):
            self.remark(field, fate.reason)

    def remark(self, field: str, reason: str) -> None:
        """Say of a field what a reader of the file would not expect."""
        self.remarks.append(f"{self.path}: {field} has no effect here: {reason}")

    def set(
        self,
        option: str,
        text: str | None,
        field: str,
        value: object,
        *,
        assumed: bool = False,
    ) -> None:
        """Set an option's text, once; None is nothing."""
        if text is None:
            return
        known = self.values.get(option)
        if known is not None and not known.assumed:
            if known.text != text and not assumed:
                self.remark(field, f"{known.field} says it already")
            return
        says = f"{field}{shown(value)} in {self.path}"
        self.values[option] = TaskValue(
            text=text,
            field=field,
            shown=says,
            assumed=assumed,
        )

    def key(self, option: str, value: Any, field: str) -> None:
        """Keep a key; EMPTY stands for none."""
        if value and value.strip() not in ("", "EMPTY"):
            if option in self.keys and self.keys[option] != value.strip():
                raise self.error(field, " and another field give different keys.")
            self.keys[option] = ApiKey(value.strip())

    def _check(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> None:
        try:
            fields.model_validate(dict(given))
        except ValidationError as error:
            found = error.errors(
                include_url=False, include_context=True, include_input=False
            )[0]
        else:
            if fields.model_config.get("extra") == "allow":
                self._check_further(fields, given, place)
            return
        name = str(found["loc"][0])
        if found["type"] == "extra_forbidden":
            raise self._unknown(fields, name, place)
        raise self.error(f"{place}{name}", f" {found['msg']}.")

    def _check_further(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> None:
        """Refuse what is a known name misspelled, or a key that would be shown."""
        for name in given:
            if name in fields.model_fields:
                continue
            shortened = name[:SHOWN_TEXT]
            near = did_you_mean(shortened, fields.model_fields, cutoff=0.85)
            if near or not name.isidentifier():
                raise self._unknown(fields, name, place)
            if SECRET.search(name):
                raise self.error(
                    f"{place}{name}",
                    " is not accepted, as it looks like a key: the model's stands in "
                    "key, or in VLM_API_KEY.",
                )
            if (found := find_secret(given[name])) is not None:
                raise self.error(
                    f"{place}{name}",
                    f" is not accepted, as its {found[:SHOWN_TEXT]} looks like a key, "
                    "and what goes into requests stands in reports: give headers with "
                    "--vlm-api-header-file.",
                )

    def _unknown(self, fields: type[BaseModel], name: str, place: str) -> VlmEvalError:
        shortened = name[:SHOWN_TEXT]
        question = did_you_mean(shortened, fields.model_fields, most=1)
        known = ", ".join(fields.model_fields)
        return self.error(
            place + (name if name.isidentifier() else repr(shortened)),
            f" is no field that is known here.{question} Known are: {known}.",
        )


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


# The variables and the arguments of ms-vlmeval, the arguments first.
ADDRESSES = ("judge_base_url", "OPENAI_API_BASE")
KEYS = ("judge_key", "OPENAI_API_KEY")


def take_judge(reading: Reading, given: Mapping[str, Any], place: str) -> None:
    """Read which judge there is, where it is and its key.

    As in ms-vlmeval, LOCAL_LLM stands for any judge but exact matching
    (dataset/utils/judge_util.py).
    """
    field = "judge"
    name = given.get("judge")
    if name != EXACT_MATCHING and given.get("LOCAL_LLM"):
        if name:
            reading.remark(f"{place}judge", "LOCAL_LLM stands for any judge")
        field, name = "LOCAL_LLM", given["LOCAL_LLM"]
    idle = [each for each in (*ADDRESSES, *KEYS, "LOCAL_LLM") if given.get(each)]
    if not name or name == EXACT_MATCHING:
        if name:
            reading.set("judge", name, f"{place}judge", name)
        reason = "there is no judge: answers are matched exactly"
        for each in idle:
            reading.remark(f"{place}{each}", reason)
        return
    reading.set("judge", name, f"{place}{field}", name)
    for each in KEYS:
        reading.key("judge-api-key", given.get(each), f"{place}{each}")
    for each in ADDRESSES:
        if given.get(each):
            address = OFFICIAL if given[each] == "OFFICIAL" else given[each]
            reading.set("judge-api-base", address, f"{place}{each}", given[each])
    if "judge-api-base" not in reading.values and "judge-api-key" in reading.keys:
        reading.set("judge-api-base", OFFICIAL, f"{place}{field}", OFFICIAL)


EVALSCOPE = {"preset": "evalscope"}
# Classes of ms-vlmeval that ask an OpenAI-compatible endpoint, with what they take
# where a file says nothing and it is not what the options take
# (vlmeval/config.py, api/gpt.py, api/lmdeploy.py).
OPENAI_CLASSES: Mapping[str, Mapping[str, str]] = {
    "CustomAPIModel": EVALSCOPE,
    "GPT4V": {**EVALSCOPE, "image-detail": "low", "api-base": OFFICIAL},
    "OpenAIWrapper": {**EVALSCOPE, "image-detail": "low"},
    "LMDeployAPI": {"max-tokens": "16384"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the file: what it is called there and how it is served or loaded.

    `class_name` is "" where only ms-vlmeval's configuration says the class.
    """

    label: str
    served: str
    place: str
    class_name: str
    fields: Mapping[str, Any]

    @property
    def is_remote(self) -> bool:
        """Whether it is behind an OpenAI-compatible endpoint."""
        return self.class_name in OPENAI_CLASSES


def list_entries(reading: Reading, models: object, place: str) -> list[Entry]:
    """Return the entries of EvalScope's list of models; names are local models."""
    listed = [models] if isinstance(models, str) else models
    assert isinstance(listed, list)
    return [
        _listed_entry(reading, model, f"{place}[{number}]")
        for number, model in enumerate(listed)
    ]


def _listed_entry(reading: Reading, model: object, place: str) -> Entry:
    if isinstance(model, str) and model:
        return Entry(label=model, served=model, place=place, class_name="", fields={})
    if not isinstance(model, dict):
        raise reading.error(
            place,
            f"{shown(model)} is not a model: give a name of ms-vlmeval's, or a "
            "mapping with name: CustomAPIModel, type and api_base, or with name and "
            "model_path.",
        )
    name, kind = model.get("name"), model.get("type")
    if not isinstance(name, str) or not name:
        raise reading.error(
            f"{place}.name",
            " is missing: it is CustomAPIModel for a model that is served, and a name "
            "of `pytest --vlm-list-models` for one that is loaded here.",
        )
    remote = name in OPENAI_CLASSES
    if remote and (not isinstance(kind, str) or not kind):
        raise reading.error(
            f"{place}.type",
            " is missing: it is the name under which the model is served.",
        )
    return Entry(
        label=str(kind) if remote else name,
        served=str(kind) if remote else name,
        place=place,
        class_name=name if remote else "",
        fields=model,
    )


def mapped_entries(reading: Reading, models: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of a configuration of VLMEvalKit."""
    found = []
    for name, model in models.items():
        place = f"model.{name}"
        if not isinstance(model, dict):
            raise reading.error(place, f" is {kind_of(model)}, and takes a mapping.")
        fields = dict(model)
        class_name = fields.pop("class", "")
        if not isinstance(class_name, str):
            raise reading.error(f"{place}.class", " takes the name of a class.")
        served = fields.get("model", name)
        if class_name not in OPENAI_CLASSES:
            served = name
        if not isinstance(served, str):
            raise reading.error(f"{place}.model", " takes a text.")
        found.append(
            Entry(
                label=name,
                served=served,
                place=place,
                class_name=class_name,
                fields=fields,
            )
        )
    return found


def choose_entry(
    reading: Reading, entries: Sequence[Entry], chosen: str | None
) -> Entry | None:
    """Return the model that is evaluated; `VlmEvalError` where that is left open."""
    if len(entries) < 2:
        return entries[0] if entries else None
    named = [each for each in entries if each.label == chosen] or [
        each for each in entries if each.served == chosen
    ]
    if len(named) == 1:
        return named[0]
    labels = [each.label for each in entries]
    names = " ".join(map(shlex.quote, labels))
    if chosen is not None:
        raise reading.error(
            "model",
            f": --vlm-model={chosen} is {'several' if named else 'none'} of the "
            f"{len(entries)} models there: {', '.join(labels)}. Give one of these.",
        )
    if isinstance(reading.path, str):
        raise reading.error(
            "model",
            f" names {len(entries)} models, and a call evaluates one. Choose it: "
            f"model={labels[0]!r}. There are: {', '.join(labels)}.",
        )
    raise reading.error(
        "model",
        f" names {len(entries)} models, and a session evaluates one, so that each has "
        f"its own report and exit code. Choose it: --vlm-model={shlex.quote(labels[0])}"
        f". All of them: for model in {names}; do pytest --vlm-config="
        f'{shlex.quote(str(reading.path))} --vlm-model="$model"; done',
    )


def take_model(reading: Reading, entry: Entry) -> None:
    """Read the fields of the model that is evaluated."""
    place = f"{entry.place}."
    named = [name for name in ("type", "model", "name") if name in entry.fields]
    field = f"{place}{named[0]}" if named else entry.place
    reading.set("model", entry.served, field, entry.served)
    if entry.is_remote:
        _take_remote(reading, entry, place)
    else:
        _take_local(reading, entry, place)


def _take_remote(reading: Reading, entry: Entry, place: str) -> None:
    left = reading.take(ApiModel, entry.fields, place)
    for name in ("type", "name", "model"):
        left.pop(name, None)
    reading.key("api-key", left.pop("key", None), f"{place}key")
    assumed = OPENAI_CLASSES[entry.class_name]
    if "api-base" not in {*reading.values, *assumed}:
        raise reading.error(
            f"{place}api_base",
            " is missing: give the URL of the endpoint that serves the model, such as "
            "http://127.0.0.1:8000/v1/chat/completions.",
        )
    if entry.fields.get("api_base") == "OFFICIAL":
        del reading.values["api-base"]
        reading.set("api-base", OFFICIAL, f"{place}api_base", "OFFICIAL")
    reading.set("backend", "endpoint", f"{place}name", entry.class_name)
    if left:
        body = json.dumps(left, default=str)
        reading.set("extra-body", body, place.rstrip("."), left)
    for option, text in assumed.items():
        reading.set(option, text, place.rstrip("."), text, assumed=True)


def _take_local(reading: Reading, entry: Entry, place: str) -> None:
    left = reading.take(LocalModel, entry.fields, place)
    left.pop("name", None)
    for name in ("max_new_tokens", "temperature"):
        if entry.fields.get(name) is not None:
            left[name] = entry.fields[name]
    for name, value in left.items():
        if not isinstance(value, str | int | float | bool):
            raise reading.error(
                f"{place}{name}",
                f"{shown(value)} is not supported: arguments of a local model "
                "are texts, numbers, true or false.",
            )
    reading.set("backend", "local", entry.place, entry.label)
    if entry.class_name:
        reading.set("model-class", entry.class_name, f"{place}class", entry.class_name)
    if left:
        words = (shlex.quote(f"{name}={value!r}") for name, value in left.items())
        reading.set("model-args", " ".join(words), place.rstrip("."), left)


BODY = ("top_k", "top_p", "repetition_penalty")
OPTIONS = {
    "max_tokens": "max-tokens",
    "temperature": "temperature",
    "timeout": "timeout",
}
# ms-vlmeval's own (utils/arguments.py), where they are not those of the options.
ASSUMED = {"max-tokens": str(2**15), "timeout": "1800"}


def take_served(
    reading: Reading, given: Mapping[str, Any], entry: Entry | None, place: str
) -> bool:
    """Read a model at `base_url`; false where there is none.

    Without it ms-vlmeval has no use for the fields that go with it, nor have we.
    """
    base = given.get("base_url")
    companions = ("key", *OPTIONS, *BODY, "extra_body", "video_llm")
    if base is None:
        for name in companions:
            if given.get(name) not in (None, False):
                reading.remark(f"{place}{name}", "it belongs to base_url")
        return False
    if entry is None:
        return False
    if entry.fields:
        raise reading.error(
            f"{place}base_url",
            f" is for models that are only names, and {entry.place} is a mapping. Give "
            "it an api_base of its own.",
        )
    reading.set("model", entry.served, entry.place, entry.served)
    reading.set("backend", "endpoint", f"{place}base_url", base)
    reading.set("api-base", base, f"{place}base_url", base)
    reading.key("api-key", given.get("key"), f"{place}key")
    for name, option in OPTIONS.items():
        if given.get(name) is not None:
            reading.set(option, str(given[name]), f"{place}{name}", given[name])
    for option, text in ASSUMED.items():
        reading.set(option, text, f"{place}base_url", text, assumed=True)
    if given.get("video_llm"):
        reading.set("video-url", "yes", f"{place}video_llm", True)
    _take_body(reading, given, place)
    return True


def _take_body(reading: Reading, given: Mapping[str, Any], place: str) -> None:
    body = {name: given[name] for name in BODY if given.get(name) is not None}
    if given.get("extra_body"):
        try:
            more = json.loads(given["extra_body"])
        except (ValueError, RecursionError):
            more = None
        if not isinstance(more, dict):
            raise reading.error(
                f"{place}extra_body",
                f"{shown(given['extra_body'])} takes a text that is a JSON object.",
            )
        body |= more
    if body:
        reading.set("extra-body", json.dumps(body), f"{place}extra_body", body)


OUTSIDE = Idle(
    "EvalScope reads it for its native backend only; what VLMEvalKit is told stands in "
    "eval_config"
)


def load_task(path: Path, chosen: str | None, folder: Path) -> Task:
    """Read a task file, for the model of the name `chosen` where it has several.

    Paths in it count from `folder`. Raises VlmEvalError, which names file and field.
    """
    try:
        stat = path.stat()
        version = stat.st_mtime_ns, stat.st_size
    except (OSError, ValueError):
        version = 0, 0
    return _load(path, chosen, folder, version)


# Every look at an option comes by here and the next.
@lru_cache(maxsize=16)
def load_mapping(text: str, chosen: str | None, folder: Path) -> Task:
    """Read a task that was given as a dict and is JSON now, as `load_task` does."""
    return _read(MAPPING, read_json_tree(text), chosen, folder)


@lru_cache(maxsize=16)
def _load(
    path: Path, chosen: str | None, folder: Path, version: tuple[int, int]
) -> Task:
    return _read(path, read_tree(path), chosen, folder)


def _read(
    path: Path | str, tree: dict[str, Any], chosen: str | None, folder: Path
) -> Task:
    reading = Reading(path)
    if "eval_backend" in tree or "eval_config" in tree:
        classes, entry = _take_evalscope(reading, tree, chosen, folder)
    elif isinstance(tree.get("model"), dict) or isinstance(tree.get("data"), dict):
        classes, entry = _take_vlmevalkit(reading, tree, chosen)
    else:
        raise reading.error(
            "its top level",
            " is neither a task of EvalScope (eval_backend and eval_config) nor a "
            "configuration of VLMEvalKit (model and data, each a mapping of names).",
        )
    label = entry is not None and chosen == entry.label
    return Task(
        path=path,
        values=reading.values,
        keys=reading.keys,
        classes=classes,
        remarks=tuple(reading.remarks),
        chosen=label,
    )


def _take_evalscope(
    reading: Reading, tree: Mapping[str, Any], chosen: str | None, folder: Path
) -> tuple[dict[str, str], Entry | None]:
    backend = tree.get("eval_backend")
    if backend != "VLMEvalKit":
        raise reading.error(
            "eval_backend",
            f"{shown(backend)} is not supported: only the tasks of the backend "
            "VLMEvalKit run here.",
        )
    for name in NATIVE & set(tree):
        reading.idle(name, OUTSIDE, tree[name])
    rest = {name: value for name, value in tree.items() if name not in NATIVE}
    reading.take(EvalScopeTask, rest, "")
    given = _eval_config(reading, tree.get("eval_config"), folder)
    place = "eval_config."
    left = reading.take(EvalConfig, _checked_data(reading, given, place), place)
    entries = list_entries(reading, given.get("model") or [], f"{place}model")
    entry = choose_entry(reading, entries, chosen)
    served = take_served(reading, left, entry, place)
    if entry is not None and not served:
        take_model(reading, entry)
    take_judge(reading, left, place)
    known = reading.values.pop("work-dir", None)
    if known is not None:
        work_dir = str(folder / Path(known.text).expanduser())
        reading.set("work-dir", work_dir, known.field, known.text)
    return {}, entry


def _checked_data(
    reading: Reading, given: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Put the names of the datasets that are shown with subtitles in their places."""
    if given.get("data") is None:
        return dict(given)
    if not isinstance(given["data"], list | str):
        return dict(given)  # The table says what is wrong.
    names = check_names(reading, given["data"], f"{place}data")
    frames = {name: given.get(name) for name in ("nframe", "fps", "use_subtitle")}
    if any(isinstance(value, list | dict) for value in frames.values()):
        return dict(given)
    return {**given, "data": take_frames(reading, frames, names, place)}


def _eval_config(reading: Reading, given: object, folder: Path) -> dict[str, Any]:
    """Return the mapping, which may stand in a file of its own or in JSON."""
    if isinstance(given, str):
        if given.endswith((".yaml", ".yml", ".json")):
            return read_tree(folder / Path(given).expanduser())
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = "no JSON"
    if not isinstance(given, dict) or not all(isinstance(each, str) for each in given):
        raise reading.error(
            "eval_config",
            f" is {kind_of(given)}, and takes a mapping with model, data and further "
            "fields, or the path of a .yaml or .json file that holds one.",
        )
    return given


def _take_vlmevalkit(
    reading: Reading, tree: Mapping[str, Any], chosen: str | None
) -> tuple[dict[str, str], Entry | None]:
    reading.take(VlmevalkitConfig, tree, "")
    classes: dict[str, str] = {}
    if tree.get("data") is not None:
        names, classes = take_mapped(reading, tree["data"])
        reading.set("data", list_datasets(names), "data", names)
    entries = mapped_entries(reading, tree.get("model") or {})
    entry = choose_entry(reading, entries, chosen)
    if entry is not None:
        take_model(reading, entry)
    return classes, entry
