"""A model that runs here, without a server: what the options say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_vlmeval.errors import VlmEvalError

Value = str | int | float | bool | None
OWN = ("model-path", "model-class", "model-args")
# What only requests to a server have.
REQUESTED = (
    *("images", "image-size", "max-pixels", "image-detail", "extra-body"),
    "serve",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """Where the model's weights are and how it is loaded.

    `path` is a folder, or a name that the class itself resolves; None takes that of
    ms-vlmeval's own configuration, as "" does for the class. `arguments` go to the
    constructor. `python` has torch; None is the running one. `visible_devices` is
    CUDA_VISIBLE_DEVICES, None if unset. This process has the copy `replica` of
    `replicas`, counted from 0. `checksums` is the file that keeps those of weights,
    `hub_cache` the folder where Hugging Face's repositories lie.
    """

    path: str | None = None
    class_name: str = ""
    arguments: Mapping[str, Value] = field(default_factory=dict)
    batch_size: int = 8
    python: Path | None = None
    visible_devices: str | None = None
    replica: int = 0
    replicas: int = 1
    checksums: Path | None = None
    hub_cache: Path | None = None

    def identity(self) -> dict[str, str | None]:
        """Return what tells runs apart; how many are asked at once does not."""
        arguments = json.dumps(dict(self.arguments), sort_keys=True)
        named = {"model_class": self.class_name} if self.class_name else {}
        return {"model_path": self.path, "model_args": arguments, **named}


def choose_local(
    values: Mapping[str, Any], backend: str, visible_devices: str | None
) -> LocalModel:
    """Return what the options say; `VlmEvalError` for what a local model cannot do."""
    given = [name for name in OWN if values[name]]
    if backend != "local":
        if given:
            raise VlmEvalError(
                f"--vlm-{given[0]} is about a model that runs here. Give "
                "--vlm-backend=local too, or leave it out."
            )
        return LocalModel()
    requested = {**values, "images": values["images"] != "original"}
    for name in REQUESTED:
        if requested[name]:
            raise VlmEvalError(
                f"--vlm-{name} is about requests to a server, and --vlm-backend=local "
                "has none. Parameters of the model go by --vlm-model-args, for example "
                "max_pixels=1003520."
            )
    return LocalModel(
        path=values["model-path"],
        class_name=values["model-class"] or "",
        arguments=values["model-args"] or {},
        batch_size=values["batch-size"],
        python=values["local-python"],
        visible_devices=visible_devices,
    )


def parse_arguments(text: str) -> dict[str, Value]:
    """Read `key=value` pairs, separated by blanks or commas; ValueError for others.

    Values are Python's literals, and else texts.
    """
    import shlex

    found: dict[str, Value] = {}
    words = shlex.shlex(text, posix=True)
    # A comma in quotes is part of a value.
    words.whitespace += ","
    words.whitespace_split, words.commenters = True, ""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError
        found[name] = _value(value)
    return found


def _value(text: str) -> Value:
    import ast  # this module is loaded in sessions without any model

    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, Value) else text
