"""The models that ms-vlmeval has classes for, read from its text without torch."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_vlmeval.errors import VlmEvalError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClass:
    """A model of `vlmeval/config.py`: its class, and the module of `vlmeval.vlm`.

    `arguments` are those of the configuration that are plain values.
    """

    class_name: str
    module: str
    arguments: dict[str, Any] = field(default_factory=dict)


def read_models(package: Path) -> dict[str, ModelClass]:
    """Read every local model by its name in the order of the file.

    `package` is the folder of ms-vlmeval. Models behind an API are left out.
    """
    modules = _modules(package / "vlm" / "__init__.py")
    tree = ast.parse((package / "config.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for name, model in _entries(node, modules):
                found[name] = model
    return found


def find_model(name: str, package: Path) -> ModelClass:
    """Return a model by its name; `VlmEvalError` where there is none."""
    models = read_models(package)
    if name in models:
        return models[name]
    close = difflib.get_close_matches(name, models, n=3, cutoff=0.5)
    question = f" Did you mean {' or '.join(close)}?" if close else ""
    raise VlmEvalError(
        f"ms-vlmeval has no local model {name!r}.{question} `pytest --vlm-list-models` "
        "names them all. A checkpoint that transformers loads by itself needs only its "
        "folder: --vlm-model-path=DIR."
    )


def find_class(name: str, package: Path) -> ModelClass:
    """Return a class by its name, without arguments; `VlmEvalError` for none."""
    modules = _modules(package / "vlm" / "__init__.py")
    if name in modules:
        return ModelClass(class_name=name, module=modules[name])
    close = difflib.get_close_matches(name, modules, n=3, cutoff=0.6)
    question = f" Did you mean {' or '.join(close)}?" if close else ""
    raise VlmEvalError(
        f"ms-vlmeval has no class {name!r} that loads a model.{question} A model "
        "behind an API is asked by the address of an OpenAI-compatible endpoint: "
        "--vlm-api-base, in a task file name: CustomAPIModel with type and api_base."
    )


def _modules(path: Path) -> dict[str, str]:
    """Return which module of the package has each class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def _entries(
    node: ast.Dict, modules: dict[str, str]
) -> Iterator[tuple[str, ModelClass]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(value, ast.Call):
            continue
        called = value.args[0] if value.args else None
        if ast.unparse(value.func) != "partial" or not isinstance(
            called, ast.Attribute
        ):
            continue
        if ast.unparse(called.value) == "vlm" and called.attr in modules:
            yield (
                str(key.value),
                ModelClass(
                    class_name=called.attr,
                    module=modules[called.attr],
                    arguments=_plain_arguments(value),
                ),
            )


def _plain_arguments(call: ast.Call) -> dict[str, Any]:
    found = {}
    for keyword in call.keywords:
        if keyword.arg is not None:
            value = _plain(keyword.value)
            if value is not None:
                found[keyword.arg] = value
    return found


def _plain(node: ast.expr) -> Any:
    """Give the value of an expression of constants, None for another."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factors = _plain(node.left), _plain(node.right)
        if all(isinstance(factor, int | float) for factor in factors):
            return factors[0] * factors[1]
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
