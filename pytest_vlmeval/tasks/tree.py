"""The text of a task file as plain values: YAML or JSON, bounded, nothing run.

No message repeats what stands in the file around a mistake: it may be a key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import ApiKey

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
    """Say what kind of value it is, in the words of the file."""
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
