"""The models that a task file names: behind an endpoint, or loaded here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vlmeval.tasks.fields import ApiModel, LocalModel
from pytest_vlmeval.tasks.reading import Reading, shown
from pytest_vlmeval.tasks.tree import kind_of

EVALSCOPE = {"preset": "evalscope"}
OFFICIAL = "https://api.openai.com/v1"
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
    reading.set("model", entry.served, _name_field(entry), entry.served)
    if entry.is_remote:
        _take_remote(reading, entry, place)
    else:
        _take_local(reading, entry, place)


def _name_field(entry: Entry) -> str:
    if not entry.fields:
        return entry.place
    given = [name for name in ("type", "model", "name") if name in entry.fields]
    return f"{entry.place}.{given[0]}" if given else entry.place


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
