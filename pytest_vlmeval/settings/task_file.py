"""Task files of EvalScope and VLMEvalKit, read into the options of a run.

No message repeats what stands in the file around a mistake: it may be a key.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.settings.groups import EXACT_MATCHING, OFFICIAL, find_secret
from pytest_vlmeval.settings.option import ApiKey, Given, list_datasets
from pytest_vlmeval.settings.task_fields import (
    API_MODEL,
    BASE_URL,
    DATASET,
    EVAL_CONFIG,
    EVALSCOPE,
    LOCAL_MODEL,
    NATIVE,
    OUTSIDE,
    VLMEVALKIT,
    Field,
    official,
)

MOST_BYTES = 200_000
MOST_DEPTH = 50
SHOWN_TEXT = 80
# What names a task that is given as a dict.
MAPPING = "config"
SECRET = re.compile(r"(^|_|-)(key|secret|password|token|authorization)$", re.I)


class _MistakeError(Exception):
    """What is wrong with a text."""


def read_tree(source: Path | Mapping[Any, object]) -> dict[str, Any]:
    """Read a task from a file or a dict, whose keys and passwords no traceback shows.

    Raises `VlmEvalError` for what is no mapping of plain values.
    """
    name = source if isinstance(source, Path) else MAPPING
    try:
        tree = _plain(name, _parse(source) if isinstance(source, Path) else source)
    except _MistakeError as error:
        mistake = str(error)
    except UnicodeDecodeError:
        mistake = "it is not a text in UTF-8."
    except RecursionError:
        mistake = f"its values are nested more than {MOST_DEPTH} deep."
    else:
        if isinstance(tree, dict):
            return tree
        mistake = (
            f"its top level is {kind_of(tree)}, and it takes a mapping: a task of "
            "EvalScope (eval_backend, eval_config), or a configuration of VLMEvalKit "
            "(model, data)."
        )
    raise VlmEvalError(f"{name} cannot be used: {mistake}")


def _parse(path: Path) -> object:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise VlmEvalError(
            f"--vlm-config={path} is not a task file by its name. Give one that ends "
            "in .yaml, .yml or .json."
        )
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VlmEvalError(
            f"--vlm-config={path} cannot be read ({reason}). Give the path of a task "
            "file of EvalScope, or of a JSON configuration of VLMEvalKit."
        ) from None
    if len(data) > MOST_BYTES:
        raise _MistakeError(f"a task file has at most {MOST_BYTES:,} bytes.")
    text = data.decode("utf-8-sig")
    if path.suffix != ".json":
        return _read_yaml(text)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise _MistakeError(
            f"line {error.lineno}, column {error.colno} is not JSON ({error.msg})."
        ) from None
    except ValueError:
        # Python bounds the digits of a number.
        raise _MistakeError("it has a number of thousands of digits.") from None


def _unique(
    pairs: list[tuple[str, Any]], where: str = "same mapping"
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _MistakeError(f"{name[:80]!r} stands twice in the {where}.")
        found[name] = value
    return found


def _read_yaml(text: str) -> object:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it"
        problem = re.sub(r"(['\"]).{2,}\1", "…", error.problem or "")
        raise _MistakeError(f"{place} is not YAML ({problem}).") from None
    except yaml.YAMLError:
        raise _MistakeError("it holds a character that YAML does not know.") from None
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError):
        # A date that does not exist, a number of thousands of digits.
        raise _MistakeError(
            "it holds a date or a number that does not exist; write it in quotes."
        ) from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML in which each name stands once in a mapping and is a text.

    Mappings are merged as they are read, so that they cannot grow beyond all bounds,
    as the nodes of PyYAML do.
    """

    _merged = 0

    def construct_document(self, node: yaml.Node) -> Any:
        """Return the values below a node, and no reference to what is unfinished."""
        return self.construct_object(node, deep=True)

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Any, Any]:
        """Return a mapping with those merged into it."""
        line = node.start_mark.line + 1
        merged: dict[str, Any] = {}
        pairs = []
        for name, below in node.value:
            value = self.construct_object(below, deep=True)
            if name.tag == "tag:yaml.org,2002:merge":
                for each in reversed(value if isinstance(value, list) else [value]):
                    self._merged += len(each)
                    merged |= each
            elif name.tag == "tag:yaml.org,2002:str":
                pairs.append((name.value, value))
            else:
                line = name.start_mark.line + 1
                raise _MistakeError(f"line {line} has a name that is not a text.")
            if self._merged > MOST_BYTES:
                raise _MistakeError(_LARGE)
        return merged | _unique(pairs, f"mapping of line {line}")


_LARGE = f"with its aliases it has over {MOST_BYTES:,} values and characters."


def _plain(path: Path | str, tree: object) -> Any:
    """Return a tree of plain values, its aliases repeated.

    It names the place and the type of a value that cannot be one, never the value.
    """
    size = 0

    def plain(value: object, place: str = "", name: str = "", depth: int = 0) -> Any:
        nonlocal size
        size += 1 + (len(value) if isinstance(value, str) else 0)
        if size > MOST_BYTES:
            raise _MistakeError(_LARGE)
        if depth > MOST_DEPTH:
            raise RecursionError
        if isinstance(value, Mapping):
            for each in value:
                if not isinstance(each, str):
                    raise VlmEvalError(
                        f"{path}: {place or 'its top level'} has a name of the type "
                        f"{type(each).__name__}, and names are texts."
                    )
            return {
                each: plain(
                    below, f"{place}.{each}" if place else each, each, depth + 1
                )
                for each, below in value.items()
            }
        if isinstance(value, list | tuple):
            return [
                plain(below, f"{place}[{number}]", name, depth + 1)
                for number, below in enumerate(value)
            ]
        if isinstance(value, str):
            return ApiKey(value) if SECRET.search(name) else value
        if isinstance(value, Path):
            return str(value)
        kind = f"of the type {type(value).__name__}"
        if isinstance(value, float) and not math.isfinite(value):
            kind = "a number that is not finite"
        elif value is None or isinstance(value, int | float):
            return value
        raise VlmEvalError(
            f"{path}: {place or 'its top level'} is {kind}, and takes what a task file "
            "can hold: texts, numbers, true or false, lists and mappings."
        )

    return plain(tree)


def kind_of(value: object) -> str:
    """Describe what kind of value it is, in the words of the file."""
    if isinstance(value, bool):
        return "true or false"
    kinds = {int: "a number", float: "a number", str: "a text"}
    kinds |= {list: "a list", dict: "a mapping"}
    return next((kinds[each] for each in kinds if isinstance(value, each)), "empty")


def shown(value: object) -> str:
    """Return what a message may say of a value: its kind, or that a flag is on.

    A key may stand in any place, if in a wrong one, and may be a number.
    """
    if isinstance(value, bool):
        return f" = {json.dumps(value)}"
    return f" ({kind_of(value)})"


class Task:
    """A task file, for one of its models; `path` names it, or a dict in its place.

    `values` are by the names of options, `keys` (of the model, of the judge) by the
    names of theirs; they are never printed. `classes` are those that the file names
    for datasets. `remarks` say what has no effect here, and why. `chosen` is true
    where the command line named the model as the file does, and not as it is served.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.values: dict[str, Given] = {}
        self.keys: dict[str, str] = {}
        self.classes: dict[str, str] = {}
        self.remarks: list[str] = []
        self.chosen = False

    def error(self, field: str, text: str) -> VlmEvalError:
        """Make the error of a field."""
        return VlmEvalError(f"{self.path}: {field}{text}")

    def remark(self, field: str, reason: str) -> None:
        """Say of a field what a reader of the file would not expect."""
        self.remarks.append(f"{self.path}: {field} has no effect here: {reason}")

    def set(
        self,
        option: str,
        text: str,
        field: str,
        value: object,
        *,
        assumed: bool = False,
    ) -> None:
        """Set an option's text, once."""
        known = self.values.get(option)
        if known is not None and not known.assumed:
            if known.text != text and not assumed:
                self.remark(field, f"{known.field} says it already")
            return
        says = f"{field}{shown(value)} in {self.path}"
        self.values[option] = Given(text, "task", says, field, assumed)

    def key(self, option: str, value: Any, field: str) -> None:
        """Keep a key; EMPTY stands for none."""
        if value and value.strip() not in ("", "EMPTY"):
            if option in self.keys and self.keys[option] != value.strip():
                raise self.error(field, " and another field give different keys.")
            self.keys[option] = ApiKey(value.strip())

    def take(
        self,
        table: Mapping[str, Field],
        given: Mapping[str, Any],
        place: str,
        *,
        further: bool = False,
    ) -> dict[str, Any]:
        """Read a mapping that lies at `place`; return what is to be read further.

        Those are its fields that stand for options only together, and those that the
        table has not, if `further` ones are allowed.
        """
        left: dict[str, Any] = {}
        # In the order of the table: the first field of an option counts.
        for name in dict.fromkeys([*(each for each in table if each in given), *given]):
            value, row, field = given[name], table.get(name), f"{place}{name}"
            if row is None:
                self._check_further(table, name, value, place, further=further)
                row = Field()
            if value is None:
                continue
            kind = row.kind
            flagged = isinstance(value, bool) and bool not in kind.types
            if flagged or not isinstance(value, kind.types):
                raise self.error(
                    field, f" is {kind_of(value)}, and takes {kind.accepts}."
                )
            if row.option:
                if (text := row.read(value)) is not None:
                    self.set(row.option, text, field, value)
            elif row.refused:
                if value is not False and value not in row.unless:
                    raise self.error(
                        field,
                        f"{shown(value)} is not supported: {row.refused}. Leave it "
                        "out.",
                    )
            elif not row.idle:
                left[name] = value
            elif value not in row.unless:
                self.remark(field, row.idle)
        return left

    def _check_further(
        self,
        table: Mapping[str, Field],
        name: str,
        value: object,
        place: str,
        *,
        further: bool,
    ) -> None:
        """Refuse what is a known name misspelled, or a key that would be shown."""
        short = name[:SHOWN_TEXT]
        is_near = did_you_mean(short, table, cutoff=0.85)
        if not further or is_near or not name.isidentifier():
            question = did_you_mean(short, table, most=1)
            shown = name if name.isidentifier() else repr(short)
            raise VlmEvalError(
                f"{self.path}: Unknown field {place}{shown}.{question} Known are: "
                f"{', '.join(table)}."
            )
        if SECRET.search(name):
            raise self.error(
                f"{place}{name}",
                " is not accepted, as it looks like a key: the model's stands in key, "
                "or in VLM_API_KEY.",
            )
        if (found := find_secret(value)) is not None:
            raise self.error(
                f"{place}{name}",
                f" is not accepted, as its {found[:SHOWN_TEXT]} looks like a key, and "
                "what goes into requests stands in reports: give headers with "
                "--vlm-api-header-file.",
            )


SUBTITLED = "Video-MME"
# The presets of ms-vlmeval that show subtitles (dataset/video_dataset_config.py).
SUBTITLES = {"8frame": "Video-MME_8frame_subs", "0.5fps": "Video-MME_0.5fps_subs"}


def check_names(task: Task, names: object, place: str) -> list[str]:
    """Return the names of a list of datasets, each once."""
    listed: list[Any] = names if isinstance(names, list) else [names]
    if not listed:
        raise task.error(place, " is empty: name a dataset.")
    for number, name in enumerate(listed):
        if not isinstance(name, str) or not name.strip():
            raise task.error(
                f"{place}[{number}]",
                f"{shown(name)} is not a dataset's name. `pytest --vlm-list` "
                "shows them all.",
            )
    return list(dict.fromkeys(name.strip() for name in listed))


def take_frames(
    task: Task, given: Mapping[str, Any], names: list[str], place: str
) -> list[str]:
    """Read how videos are shown; return the names with presets for subtitles."""
    shows: dict[str, Any] = {}
    for name in ("fps", "nframe"):
        value = given.get(name)
        try:
            is_meant = value is not None and float(value) > 0
        except ValueError:
            raise task.error(
                f"{place}{name}",
                f"{shown(value)} is not accepted: it takes a number.",
            ) from None
        if is_meant and shows:
            task.remark(f"{place}nframe", "fps says how videos are shown")
        elif is_meant:
            shows[name] = value
    if given.get("use_subtitle") and SUBTITLED not in names:
        task.remark(f"{place}use_subtitle", f"only {SUBTITLED} has subtitles")
    elif given.get("use_subtitle"):
        way = f"{shows.get('nframe', 8)}frame"
        if "fps" in shows:
            way = f"{float(shows['fps']):g}fps"
        if way not in SUBTITLES:
            (given_as,) = shows
            raise task.error(
                f"{place}use_subtitle",
                f" = true is not supported with this {given_as}: subtitles are shown "
                f"by the presets {' and '.join(SUBTITLES.values())}. Give nframe: 8 or "
                "fps: 0.5.",
            )
        if set(names) == {SUBTITLED}:
            return [SUBTITLES[way]]
        names = [SUBTITLES[way] if name == SUBTITLED else name for name in names]
    for name, value in shows.items():
        task.set(name, str(value), f"{place}{name}", value)
    return names


def take_mapped(task: Task, data: Mapping[str, Any]) -> None:
    """Read the datasets of a configuration of VLMEvalKit, and their classes.

    Raises VlmEvalError where they are to be shown in different ways.
    """
    if not data:
        raise task.error("data", " is empty: name a dataset.")
    found: list[str] = []
    first = ""
    first_way: dict[str, Any] = {}
    for name, entry in data.items():
        place = f"data.{name}"
        if not isinstance(entry, dict):
            raise task.error(place, f" is {kind_of(entry)}, and takes a mapping.")
        given = task.take(DATASET, entry, f"{place}.")
        names = check_names(task, given.get("dataset", name), place)
        way: dict[str, Any] = {
            name: given[name] for name in ("nframe", "fps") if name in given
        }
        if way and first_way and way != first_way:
            another = "another " if way.keys() == first_way.keys() else ""
            raise task.error(
                place,
                f" shows videos by {' and '.join(way)}, and {first} by {another}"
                f"{' and '.join(first_way)}: a run has one way for all. Make it two "
                "files, or name presets, such as Video-MME_64frame.",
            )
        if way and not first_way:
            first, first_way = place, way
        found += (names := take_frames(task, given, names, f"{place}."))
        if "class" in given:
            task.classes[names[0]] = given["class"]
    task.set("data", list_datasets(dict.fromkeys(found)), "data", found)


# The variables and the arguments of ms-vlmeval, the arguments first.
ADDRESSES = ("judge_base_url", "OPENAI_API_BASE")
KEYS = ("judge_key", "OPENAI_API_KEY")


def take_judge(task: Task, given: Mapping[str, Any], place: str) -> None:
    """Read which judge there is, where it is and its key.

    As in ms-vlmeval, LOCAL_LLM stands for any judge but exact matching
    (dataset/utils/judge_util.py).
    """
    field = f"{place}judge"
    name = given.get("judge")
    if name != EXACT_MATCHING and given.get("LOCAL_LLM"):
        if name:
            task.remark(field, "LOCAL_LLM stands for any judge")
        field, name = f"{place}LOCAL_LLM", given["LOCAL_LLM"]
    if name:
        task.set("judge", name, field, name)
    if not name or name == EXACT_MATCHING:
        for each in (*ADDRESSES, *KEYS, "LOCAL_LLM"):
            if given.get(each):
                reason = "there is no judge: answers are matched exactly"
                task.remark(f"{place}{each}", reason)
        return
    for each in KEYS:
        task.key("judge-api-key", given.get(each), f"{place}{each}")
    for each in ADDRESSES:
        if address := given.get(each):
            task.set("judge-api-base", official(address), f"{place}{each}", address)
    if "judge-api-base" not in task.values and "judge-api-key" in task.keys:
        task.set("judge-api-base", OFFICIAL, field, OFFICIAL)


EVALSCOPE_PRESET = {"preset": "evalscope"}
# Classes of ms-vlmeval that ask an OpenAI-compatible endpoint, with what they take
# where a file says nothing and it is not what the options take
# (vlmeval/config.py, api/gpt.py, api/lmdeploy.py).
OPENAI_CLASSES: Mapping[str, Mapping[str, str]] = {
    "CustomAPIModel": EVALSCOPE_PRESET,
    "GPT4V": {**EVALSCOPE_PRESET, "image-detail": "low", "api-base": OFFICIAL},
    "OpenAIWrapper": {**EVALSCOPE_PRESET, "image-detail": "low"},
    "LMDeployAPI": {"max-tokens": "16384"},
}
# What ms-vlmeval itself takes of models at `base_url` (utils/arguments.py).
ASSUMED = {"max-tokens": str(2**15), "timeout": "1800"}


class Entry(NamedTuple):
    """A model of the file: what it is called there and how it is served or loaded.

    `class_name` is "" where only ms-vlmeval's configuration says the class.
    """

    label: str
    served: str
    place: str
    fields: Mapping[str, Any]
    class_name: str = ""

    @property
    def is_served(self) -> bool:
        """Whether an endpoint serves it, and it is not loaded here."""
        return self.class_name in OPENAI_CLASSES

    @property
    def described(self) -> str:
        """Say as what its fields are read, and why."""
        if self.is_served:
            return f"{self.place} is a {self.class_name}, which an endpoint serves."
        field = "class" if self.class_name else "name"
        return (
            f"{self.place} is a model that is loaded here, as its {field} is none of "
            f"{', '.join(OPENAI_CLASSES)}."
        )


def list_entries(task: Task, models: list[object], place: str) -> list[Entry]:
    """Return the entries of EvalScope's list of models; names are local models."""
    found = []
    for number, model in enumerate(models):
        at = f"{place}[{number}]"
        if isinstance(model, str) and model:
            found.append(Entry(model, model, at, {}))
            continue
        if not isinstance(model, dict):
            raise task.error(
                at,
                f"{shown(model)} is not a model: give a name of ms-vlmeval's, or a "
                "mapping with name: CustomAPIModel, type and api_base, or with name "
                "and model_path.",
            )
        name, kind = model.get("name"), model.get("type")
        if not isinstance(name, str) or not name:
            raise task.error(
                f"{at}.name",
                " is missing: it is CustomAPIModel for a model that is served, and a "
                "name of `pytest --vlm-list-models` for one that is loaded here.",
            )
        is_remote = name in OPENAI_CLASSES
        served = kind if is_remote else name
        if not isinstance(served, str) or not served:
            raise task.error(
                f"{at}.type",
                f" is missing: it is the name under which the {name} is served.",
            )
        found.append(Entry(served, served, at, model, name if is_remote else ""))
    return found


def mapped_entries(task: Task, models: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of a configuration of VLMEvalKit."""
    found = []
    for name, model in models.items():
        place = f"model.{name}"
        if not isinstance(model, dict):
            raise task.error(place, f" is {kind_of(model)}, and takes a mapping.")
        fields = dict(model)
        class_name = fields.pop("class", "")
        if not isinstance(class_name, str):
            raise task.error(f"{place}.class", " takes the name of a class.")
        served = fields.get("model", name) if class_name in OPENAI_CLASSES else name
        if not isinstance(served, str):
            raise task.error(f"{place}.model", " takes a text.")
        found.append(Entry(name, served, place, fields, class_name))
    return found


def choose_entry(
    task: Task, entries: Sequence[Entry], chosen: str | None
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
    if chosen is not None:
        raise task.error(
            "model",
            f": --vlm-model={chosen} is {'several' if named else 'none'} of the "
            f"{len(entries)} models there: {', '.join(labels)}. Give one of these.",
        )
    if isinstance(task.path, str):
        raise task.error(
            "model",
            f" names {len(entries)} models, and a call evaluates one. Choose it: "
            f"model={labels[0]!r}. There are: {', '.join(labels)}.",
        )
    raise task.error(
        "model",
        f" names {len(entries)} models, and a session evaluates one, so that each has "
        f"its own report and exit code. Choose it: --vlm-model={shlex.quote(labels[0])}"
        f". All of them: for model in {' '.join(map(shlex.quote, labels))}; do pytest "
        f'--vlm-config={shlex.quote(str(task.path))} --vlm-model="$model"; done',
    )


def take_model(task: Task, entry: Entry) -> None:
    """Read the fields of the model that is evaluated."""
    place = f"{entry.place}."
    named = [name for name in ("type", "model", "name") if name in entry.fields]
    field = f"{place}{named[0]}" if named else entry.place
    task.set("model", entry.served, field, entry.served)
    if "api_base" in entry.fields and not entry.is_served:
        meant = entry.class_name or entry.label
        raise task.error(
            f"{place}{'class' if entry.class_name else 'name'}",
            " is not the class of a model that an endpoint serves, and api_base is for "
            f"these.{did_you_mean(meant, OPENAI_CLASSES, most=1)} Accepted are "
            f"{', '.join(OPENAI_CLASSES)}. For a model that is loaded here, leave "
            "api_base out.",
        )
    take = _take_api if entry.is_served else _take_local
    try:
        take(task, entry, place)
    except VlmEvalError as error:
        raise VlmEvalError(f"{error} {entry.described}") from None


def _take_api(task: Task, entry: Entry, place: str) -> None:
    left = task.take(API_MODEL, entry.fields, place, further=True)
    for name in ("type", "name", "model"):
        left.pop(name, None)
    assumed = OPENAI_CLASSES[entry.class_name]
    if "api-base" not in {*task.values, *assumed}:
        raise task.error(
            f"{place}api_base",
            " is missing: give the URL of the endpoint that serves the model, such as "
            "http://127.0.0.1:8000/v1/chat/completions.",
        )
    task.set("backend", "endpoint", f"{place}name", entry.class_name)
    _take_body(task, left, place, entry.place)
    for option, text in assumed.items():
        task.set(option, text, entry.place, text, assumed=True)


def _take_body(task: Task, left: dict[str, Any], place: str, field: str) -> None:
    """Read the key of a served model, and what else goes into requests."""
    task.key("api-key", left.pop("key", None), f"{place}key")
    if left:
        task.set("extra-body", json.dumps(left), field, left)


def _take_local(task: Task, entry: Entry, place: str) -> None:
    left = task.take(LOCAL_MODEL, entry.fields, place, further=True)
    left.pop("name", None)
    for name in ("max_new_tokens", "temperature"):
        if entry.fields.get(name) is not None:
            left[name] = entry.fields[name]
    for name, value in left.items():
        if not isinstance(value, str | int | float | bool):
            raise task.error(
                f"{place}{name}",
                f"{shown(value)} is not supported: arguments of a local model "
                "are texts, numbers, true or false.",
            )
    task.set("backend", "local", entry.place, entry.label)
    if entry.class_name:
        task.set("model-class", entry.class_name, f"{place}class", entry.class_name)
    if left:
        words = (shlex.quote(f"{name}={value!r}") for name, value in left.items())
        task.set("model-args", " ".join(words), entry.place, left)


def take_served(task: Task, given: Mapping[str, Any], entry: Entry, place: str) -> None:
    """Read a model at `base_url`, with the fields that go with it."""
    if entry.fields:
        raise task.error(
            f"{place}base_url",
            f" is for models that are only names, and {entry.place} is a mapping. Give "
            "it an api_base of its own.",
        )
    task.set("model", entry.served, entry.place, entry.served)
    left = task.take(BASE_URL, given, place)
    task.set("backend", "endpoint", f"{place}base_url", given["base_url"])
    for option, text in ASSUMED.items():
        task.set(option, text, f"{place}base_url", text, assumed=True)
    if text := left.pop("extra_body", ""):
        try:
            more = json.loads(text)
        except (ValueError, RecursionError):
            more = None
        if not isinstance(more, dict):
            raise task.error(
                f"{place}extra_body",
                f"{shown(text)} takes a text that is a JSON object.",
            )
        left |= more
    _take_body(task, left, place, f"{place}extra_body")


def load_task(
    source: Path | Mapping[Any, object], chosen: str | None, folder: Path
) -> Task:
    """Read a task file or a dict, for the model of the name `chosen` of several.

    Paths in it count from `folder`. Raises VlmEvalError, which names file and field.
    """
    tree = read_tree(source)
    task = Task(source if isinstance(source, Path) else MAPPING)
    if "eval_backend" in tree or "eval_config" in tree:
        entry = _take_evalscope(task, tree, chosen, folder)
    elif isinstance(tree.get("model"), dict) or isinstance(tree.get("data"), dict):
        task.take(VLMEVALKIT, tree, "")
        if tree.get("data") is not None:
            take_mapped(task, tree["data"])
        entries = mapped_entries(task, tree.get("model") or {})
        entry = choose_entry(task, entries, chosen)
        if entry is not None:
            take_model(task, entry)
    else:
        raise task.error(
            "its top level",
            " is neither a task of EvalScope (eval_backend and eval_config) nor a "
            "configuration of VLMEvalKit (model and data, each a mapping of names).",
        )
    task.chosen = entry is not None and chosen == entry.label
    return task


def _take_evalscope(
    task: Task, tree: Mapping[str, Any], chosen: str | None, folder: Path
) -> Entry | None:
    if tree.get("eval_backend") != "VLMEvalKit":
        raise task.error(
            "eval_backend",
            f"{shown(tree.get('eval_backend'))} is not supported: only the tasks of "
            "the backend VLMEvalKit run here.",
        )
    for name in tree:
        if name in NATIVE:
            task.remark(name, OUTSIDE)
    rest = {name: value for name, value in tree.items() if name not in NATIVE}
    task.take(EVALSCOPE, rest, "")
    given = _eval_config(task, tree.get("eval_config"), folder)
    place = "eval_config."
    # Without base_url ms-vlmeval has no use for the fields that go with it.
    served = {
        name: given.pop(name)
        for name in BASE_URL
        if given.get(name) not in (None, False)
    }
    left = task.take(EVAL_CONFIG, given, place)
    names = check_names(task, left["data"], f"{place}data") if "data" in left else []
    if names := take_frames(task, left, names, place):
        task.set("data", list_datasets(names), f"{place}data", names)
    models = left.get("model", [])
    listed = models if isinstance(models, list) else [models]
    entries = list_entries(task, listed, f"{place}model")
    entry = choose_entry(task, entries, chosen)
    if entry is not None and "base_url" in served:
        take_served(task, served, entry, place)
    elif entry is not None:
        take_model(task, entry)
    if "base_url" not in served:
        for name in served:
            task.remark(f"{place}{name}", "it belongs to base_url")
    take_judge(task, left, place)
    if (known := task.values.get("work-dir")) is not None:
        path = str(folder / Path(known.text).expanduser())
        task.values["work-dir"] = known._replace(text=path)
    return entry


def _eval_config(task: Task, given: object, folder: Path) -> dict[str, Any]:
    """Return the mapping, which may stand in a file of its own or in JSON."""
    if isinstance(given, str):
        if given.endswith((".yaml", ".yml", ".json")):
            return read_tree(folder / Path(given).expanduser())
        try:
            given = _plain(task.path, json.loads(given))
        except (ValueError, RecursionError, _MistakeError):
            given = "no JSON"
    if not isinstance(given, dict):
        raise task.error(
            "eval_config",
            f" is {kind_of(given)}, and takes a mapping with model, data and further "
            "fields, or the path of a .yaml or .json file that holds one.",
        )
    return dict(given)
