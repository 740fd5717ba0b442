"""Every field of a task file of EvalScope or VLMEvalKit, and what becomes of it.

No message repeats what stands in the file around a mistake: it may be a key.

The fields are those of EvalScope's TaskConfig, of ms-vlmeval's Arguments
(vlmeval/utils/arguments.py), of its API models (vlmeval/api/gpt.py, base.py,
lmdeploy.py) and of VLMEvalKit's configuration (docs/en/ConfigSystem.md).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.option import ApiKey, list_datasets

MOST_BYTES = 200_000
# Of a file that repeats its parts by aliases, all repetitions counted.
MOST_VALUES = 20_000
MOST_DEPTH = 50
# What names a task that is given as a dict.
MAPPING = "config"
SECRET = re.compile(r"(^|_|-)(key|secret|password|token|authorization)$", re.I)


def read_tree(path: Path) -> dict[str, Any]:
    """Read a file whose top level is a mapping; `VlmEvalError` for another."""
    text = _read_text(path)
    return _checked(path, text, is_json=path.suffix == ".json")


def read_json_tree(text: str) -> dict[str, Any]:
    """Read what `write_mapping` has written."""
    return _checked(MAPPING, text, is_json=True)


def write_mapping(tree: Mapping[Any, object]) -> str:
    """Return the JSON of a task given as a dict; `VlmEvalError` for what is no task.

    It names the place and the type of a value that cannot be one, never the value.
    """
    try:
        text = json.dumps(_plain(tree, "", 0))
    except RecursionError:
        raise VlmEvalError(
            f"{MAPPING} cannot be used: its values are nested more than {MOST_DEPTH} "
            "deep."
        ) from None
    if len(text) > MOST_BYTES:
        raise VlmEvalError(
            f"{MAPPING} cannot be used: as JSON it has more than {MOST_BYTES:,} "
            "characters."
        )
    # It may hold keys, and is a variable of many functions.
    return ApiKey(text)


def _plain(value: object, place: str, depth: int) -> object:
    """Return a value as JSON has it."""
    if depth > MOST_DEPTH:
        raise RecursionError
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                where = place or "its top level"
                raise VlmEvalError(
                    f"{MAPPING}: {where} has a name of the type {type(name).__name__}, "
                    "and names are texts."
                )
        return {
            name: _plain(each, f"{place}.{name}" if place else name, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(each, f"{place}[{number}]", depth + 1)
            for number, each in enumerate(value)
        ]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    kind = "a number that is not finite"
    if not isinstance(value, float):
        kind = f"of the type {type(value).__name__}"
    raise VlmEvalError(
        f"{MAPPING}: {place} is {kind}, and takes what a task file can hold: texts, "
        "numbers, true or false, lists and mappings."
    )


def _checked(path: object, text: str, *, is_json: bool) -> dict[str, Any]:
    try:
        tree = _read_json(text) if is_json else _read_yaml(text)
    except _MistakeError as mistake:
        raise VlmEvalError(f"{path} cannot be used: {mistake}") from None
    except RecursionError:
        raise VlmEvalError(
            f"{path} cannot be used: its values are nested more than {MOST_DEPTH} deep."
        ) from None
    if not isinstance(tree, dict):
        raise VlmEvalError(
            f"{path} cannot be used: its top level is {kind_of(tree)}, and it takes a "
            "mapping: a task of EvalScope (eval_backend, eval_config), or a "
            "configuration of VLMEvalKit (model, data)."
        )
    return _covered(tree)


def _covered(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping whose keys and passwords no traceback shows."""
    return {name: _cover(value, name) for name, value in tree.items()}


def _cover(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return ApiKey(value) if SECRET.search(name) else value
    if isinstance(value, list):
        return [_cover(each, name) for each in value]
    return _covered(value) if isinstance(value, dict) else value


def kind_of(value: object) -> str:
    """Describe what kind of value it is, in the words of the file."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    kinds = {"str": "a text", "list": "a list", "dict": "a mapping"}
    name = type(value).__name__
    return kinds.get(name, f"a {name}")


class _MistakeError(Exception):
    """What is wrong with a text."""


def _read_text(path: Path) -> str:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise VlmEvalError(
            f"--vlm-config={path} is not a task file by its name. Give one that ends "
            "in .yaml, .yml or .json."
        )
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise VlmEvalError(
            f"{path} cannot be used: it is not a text in UTF-8."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VlmEvalError(
            f"--vlm-config={path} cannot be read ({reason}). Give the path of a task "
            "file of EvalScope, or of a JSON configuration of VLMEvalKit."
        ) from None
    if len(data) > MOST_BYTES:
        raise VlmEvalError(
            f"{path} cannot be used: a task file has at most {MOST_BYTES:,} bytes."
        )
    return text


def _read_json(text: str) -> Any:
    try:
        tree = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise _MistakeError(
            f"line {error.lineno}, column {error.colno} is not JSON ({error.msg})."
        ) from None
    except ValueError:
        # Python bounds the digits of a number.
        raise _MistakeError("it has a number of thousands of digits.") from None
    _check_depth(tree)
    return tree


def _check_depth(tree: object) -> None:
    level = [tree]
    for _ in range(MOST_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise RecursionError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _MistakeError(f"{name[:80]!r} stands twice in the same mapping.")
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise _MistakeError(f"{name} is no value of JSON.")


def _read_yaml(text: str) -> Any:
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Size().check(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it"
        problem = re.sub(r"(['\"]).{2,}\1", "…", error.problem or "")
        raise _MistakeError(f"{place} is not YAML ({problem}).") from None
    except yaml.YAMLError:
        raise _MistakeError("it holds a character that YAML does not know.") from None
    except (ValueError, TypeError, OverflowError):
        # A date that does not exist, a number of thousands of digits.
        raise _MistakeError(
            "it holds a date or a number that does not exist; write it in quotes."
        ) from None


class _Size:
    """Counts the values below a node as often as aliases repeat them."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def check(self, node: yaml.Node) -> None:
        """Raise for what would grow beyond all bounds, and for names given twice."""
        if self._count(node, 0) > MOST_VALUES:
            raise _MistakeError(f"with its aliases it has over {MOST_VALUES:,} values.")

    def _count(self, node: yaml.Node, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise RecursionError
        if id(node) in self._open:
            line = node.start_mark.line + 1
            raise _MistakeError(f"the value in line {line} is part of itself.")
        if id(node) not in self._sizes:
            self._open.add(id(node))
            children = self._children(node)
            below = sum(self._count(child, depth + 1) for child in children)
            self._sizes[id(node)] = 1 + below
            self._open.discard(id(node))
        return self._sizes[id(node)]

    def _children(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if not isinstance(node, yaml.MappingNode):
            return []
        names = [name.value for name, _ in node.value if _is_name(name)]
        for name, _ in node.value:
            if not _is_name(name):
                line = name.start_mark.line + 1
                raise _MistakeError(f"line {line} has a name that is not a text.")
            if names.count(name.value) > 1:
                line = node.start_mark.line + 1
                raise _MistakeError(
                    f"{name.value[:80]!r} stands twice in the mapping of line {line}."
                )
        return [value for _, value in node.value]


def _is_name(node: yaml.Node) -> bool:
    tags = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
    return isinstance(node, yaml.ScalarNode) and node.tag in tags


@dataclass(frozen=True, slots=True)
class Becomes:
    """The field is an option, by this name; `read` gives its text, None for nothing."""

    option: str
    read: Callable[[Any], str | None] = str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """The field is honoured together with others; `note` says how."""

    note: str


@dataclass(frozen=True, slots=True)
class Idle:
    """The field changes nothing here, and is named with the reason.

    It is not named where it has one of the values `unless`.
    """

    reason: str
    unless: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The field would change results in a way that is not offered: an error.

    It is taken where it has one of the values `unless`, which change nothing.
    """

    reason: str
    unless: tuple[object, ...] = (False,)


Fate = Becomes | Read | Idle | Refused


def whether(value: object) -> str:
    """Return the text of a flag."""
    return "yes" if value else "no"


def unless(nothing: object) -> Callable[[object], str | None]:
    """Return what reads a value that means nothing where it is `nothing`."""
    return lambda value: None if value == nothing else str(value)


def _expect(accepts: str, *kinds: type) -> AfterValidator:
    def check(value: Any) -> Any:
        # A flag is a number to Python, and none to a reader of the file.
        flag = isinstance(value, bool) and bool not in kinds
        if value is None or (isinstance(value, kinds) and not flag):
            return value
        raise PydanticCustomError(
            "kind",
            "is {kind}, and takes {accepts}",
            {"kind": kind_of(value), "accepts": accepts},
        )

    return AfterValidator(check)


# What a field may hold; empty (null) always means that it is not there.
Text = Annotated[Any, _expect("a text (in quotes, if it looks like a number)", str)]
Number = Annotated[Any, _expect("a number", int, float, str)]
Flag = Annotated[Any, _expect("true or false", bool)]
Object = Annotated[Any, _expect("a mapping", dict)]
Several = Annotated[Any, _expect("a list", list, str)]
Anything = Any


FOLLOWS = "the judge follows --vlm-concurrency, --vlm-retries and --vlm-timeout"
RESUMES = "what has no usable answer is asked by the next command, and nothing else"
# Read by EvalScope itself, whose own backend they belong to: VLMEvalKit tasks of it
# never see them.
NATIVE = frozenset(
    "model model_id model_args model_task chat_template datasets dataset_args "
    "dataset_dir dataset_hub repeats generation_config eval_type limit "
    "eval_batch_size rerun_review ignore_errors api_url api_key timeout stream judge "
    "analysis_report collect_perf sandbox use_sandbox sandbox_type "
    "sandbox_manager_config agent_config enable_progress_tracker "
    "evalscope_version judge_strategy judge_worker_num judge_model_args".split()
)


class _Fields(BaseModel):
    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, protected_namespaces=()
    )


class EvalScopeTask(_Fields):
    """The top level of a task of EvalScope."""

    eval_backend: Annotated[Text, Read("has to be VLMEvalKit")] = None
    eval_config: Annotated[
        Anything, Read("the fields below, or the path of a file that holds them")
    ] = None
    work_dir: Annotated[
        Text, Becomes("work-dir", note="from the current folder; no subfolder by time")
    ] = None
    use_cache: Annotated[
        Anything,
        Idle("answers are kept in the run store, and found there whenever it ran"),
    ] = None
    no_timestamp: Annotated[
        Anything, Idle("the run store has no subfolders by time")
    ] = None
    debug: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    seed: Annotated[
        Anything,
        Idle("only --vlm-sample draws at random, with --vlm-seed"),
    ] = None


class EvalConfig(_Fields):
    """The `eval_config` of a task."""

    data: Annotated[Several, Becomes("data", read=list_datasets)] = None
    model: Annotated[
        Several,
        Read("one of them: --vlm-model=NAME chooses where there are several"),
    ] = None
    mode: Annotated[
        Text,
        Becomes(
            "mode",
            read=lambda mode: "score" if mode == "eval" else str(mode),
            note="eval is score",
        ),
    ] = None
    limit: Annotated[Number, Becomes("limit")] = None
    reuse: Annotated[
        Flag,
        Becomes(
            "fresh",
            read=lambda reuse: whether(not reuse),
            note="false asks every sample again at each start",
        ),
    ] = None
    rerun: Annotated[
        Flag, Becomes("fresh", read=whether, note="reuse, before ms-vlmeval 0.0.11")
    ] = None
    work_dir: Annotated[
        Text, Becomes("work-dir", note="where the top level has none")
    ] = None
    nproc: Annotated[Number, Becomes("concurrency")] = None
    api_nproc: Annotated[Number, Becomes("concurrency", note="where nproc is not")] = (
        None
    )
    retry: Annotated[Number, Becomes("retries")] = None
    judge: Annotated[Text, Read("--vlm-judge; LOCAL_LLM stands for it")] = None
    judge_base_url: Annotated[Text, Read("--vlm-judge-api-base")] = None
    judge_key: Annotated[Text, Read("the judge's key")] = None
    OPENAI_API_KEY: Annotated[Text, Read("the judge's key; EMPTY is none")] = None
    OPENAI_API_BASE: Annotated[Text, Read("--vlm-judge-api-base")] = None
    LOCAL_LLM: Annotated[Text, Read("--vlm-judge")] = None
    judge_args: Annotated[
        Anything,
        Refused("a judge has a name, an address and a key here", ("",)),
    ] = None
    judge_api_nproc: Annotated[Anything, Idle(FOLLOWS)] = None
    judge_retry: Annotated[Anything, Idle(FOLLOWS)] = None
    judge_timeout: Annotated[Anything, Idle(FOLLOWS)] = None
    use_verifier: Annotated[
        Flag, Refused("the verifier is a model that ms-vlmeval loads while it scores")
    ] = None
    nframe: Annotated[Number, Read("--vlm-nframe, unless fps is above 0")] = None
    fps: Annotated[Number, Read("--vlm-fps, if above 0")] = None
    use_subtitle: Annotated[
        Flag,
        Read("Video-MME with 8 frames or 0.5 frames per second: its preset `..._subs`"),
    ] = None
    pack: Annotated[
        Flag, Refused("a preset's name says it: MMBench_Video_8frame_pack")
    ] = None
    base_url: Annotated[Text, Read("--vlm-api-base of models that are names")] = None
    key: Annotated[Text, Read("the model's key, with base_url")] = None
    max_tokens: Annotated[Number, Read("--vlm-max-tokens, with base_url (32768)")] = (
        None
    )
    temperature: Annotated[Number, Read("--vlm-temperature, with base_url")] = None
    timeout: Annotated[Number, Read("--vlm-timeout, with base_url (1800)")] = None
    top_k: Annotated[Number, Read("--vlm-extra-body, with base_url")] = None
    top_p: Annotated[Number, Read("--vlm-extra-body, with base_url")] = None
    repetition_penalty: Annotated[Number, Read("--vlm-extra-body, with base_url")] = (
        None
    )
    extra_body: Annotated[Text, Read("--vlm-extra-body, with base_url")] = None
    video_llm: Annotated[Flag, Read("--vlm-video-url, with base_url")] = None
    local_media: Annotated[
        Flag, Refused("images and videos are sent, not their paths")
    ] = None
    custom_prompt: Annotated[
        Text, Refused("prompts are those of the dataset", ("",))
    ] = None
    thinker: Annotated[
        Flag, Refused("it doubles other fields: give max_tokens and timeout themselves")
    ] = None
    use_vllm: Annotated[
        Flag, Refused("serve the model with vLLM, and give its address as api_base")
    ] = None
    config: Annotated[Text, Refused("give that file itself as --vlm-config", ("",))] = (
        None
    )
    reuse_aux: Annotated[
        Anything, Idle("judges' replies are kept in the store like answers", ("all",))
    ] = None
    keep_failed: Annotated[Anything, Idle(RESUMES, (False,))] = None
    ignore: Annotated[Anything, Idle(RESUMES, (False,))] = None
    verbose: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    api_mode: Annotated[
        Anything, Idle("requests are always asked side by side", (True, False))
    ] = None
    monitor_interval: Annotated[Anything, Idle("progress is always shown")] = None
    debug: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None


class ApiModel(_Fields):
    """A model behind an OpenAI-compatible endpoint; other fields go into the body."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Text, Read("--vlm-model, the name it is served under")] = None
    name: Annotated[Text, Read("CustomAPIModel")] = None
    model: Annotated[Text, Read("--vlm-model, in a configuration of VLMEvalKit")] = None
    api_base: Annotated[Text, Becomes("api-base", note="OFFICIAL is OpenAI's")] = None
    key: Annotated[Text, Read("the model's key; EMPTY is none")] = None
    temperature: Annotated[Number, Becomes("temperature")] = None
    max_tokens: Annotated[Number, Becomes("max-tokens")] = None
    img_size: Annotated[
        Number, Becomes("image-size", read=unless(-1), note="-1 is none")
    ] = None
    img_detail: Annotated[Text, Becomes("image-detail")] = None
    system_prompt: Annotated[Text, Becomes("system-prompt")] = None
    video_llm: Annotated[Flag, Becomes("video-url", read=whether)] = None
    retry: Annotated[Number, Becomes("retries")] = None
    timeout: Annotated[Number, Becomes("timeout")] = None
    total_img_size: Annotated[
        Number, Refused("images are bounded one by one, by img_size", (-1,))
    ] = None
    max_file_size: Annotated[
        Number, Refused("images are bounded in pixels, by img_size", (1e9,))
    ] = None
    use_azure: Annotated[
        Flag,
        Refused(
            "give the deployment's URL as api_base, and --vlm-api-query and "
            "--vlm-api-header-file"
        ),
    ] = None
    local_media: Annotated[
        Flag, Refused("images and videos are sent, not their paths")
    ] = None
    custom_prompt: Annotated[
        Text, Refused("prompts are those of the dataset", ("",))
    ] = None
    stream: Annotated[Flag, Refused("answers are asked for as a whole")] = None
    wait: Annotated[Anything, Idle("pauses between retries grow by themselves")] = None
    verbose: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    fail_msg: Annotated[Anything, Idle("a failure is a state of its own here")] = None


class LocalModel(_Fields):
    """A model that ms-vlmeval loads; other fields are arguments of its class."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[Text, Read("--vlm-model, with --vlm-backend=local")] = None
    model_path: Annotated[Text, Becomes("model-path")] = None
    max_new_tokens: Annotated[
        Number, Becomes("max-tokens", note="and an argument of the class")
    ] = None
    temperature: Annotated[
        Number, Becomes("temperature", note="and an argument of the class")
    ] = None
    video_llm: Annotated[
        Flag, Idle("a local class says itself whether it takes videos")
    ] = None


class DatasetFields(_Fields):
    """A dataset in a configuration of VLMEvalKit."""

    dataset: Annotated[Text, Read("--vlm-data; else the name of the entry")] = None
    nframe: Annotated[Number, Read("--vlm-nframe, which all datasets share")] = None
    fps: Annotated[Number, Read("--vlm-fps, which all datasets share")] = None
    use_subtitle: Annotated[
        Flag,
        Read("Video-MME with 8 frames or 0.5 frames per second: its preset `..._subs`"),
    ] = None
    pack: Annotated[
        Flag, Refused("a preset's name says it: MMBench_Video_8frame_pack")
    ] = None


class VlmevalkitConfig(_Fields):
    """The top level of VLMEvalKit's `--config`."""

    model: Annotated[Object, Read("entries; --vlm-model=NAME chooses")] = None
    data: Annotated[Object, Read("entries by their names")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskValue:
    """The text of an option, the field that gives it, and how it stands there.

    `assumed` is what ms-vlmeval takes where the file says nothing.
    """

    text: str
    field: str
    shown: str
    assumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file, for one of its models; `path` names it, or a dict in its place.

    `values` are by the names of options, `keys` (of the model, of the judge) by the
    names of theirs; they are never printed. `classes` are those that the file names
    for datasets. `remarks` say what has no effect here, and why. `chosen` is true
    where the command line named the model as the file does, and not as it is served.
    """

    path: Path | str
    values: Mapping[str, TaskValue]
    keys: Mapping[str, str] = field(repr=False)
    classes: Mapping[str, str]
    remarks: tuple[str, ...]
    chosen: bool
