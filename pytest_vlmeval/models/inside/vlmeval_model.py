"""One of ms-vlmeval's own model classes, with its prompts, asked one by one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = {
    "multiple_choice": "MCQ",
    "yes_no": "Y/N",
    "vqa": "VQA",
    "caption": "Caption",
    "conversation": "MT",
}


class VlmevalModel:
    """A class of `vlmeval.vlm`, imported without all the others.

    The package's own `__init__` imports a hundred models with whatever they need; here
    only the module of this one is. The type of a dataset, which models ask for to
    choose their prompt, comes with each sample.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._types: dict[str, tuple[str, str]] = {}
        self._images: list[str] = []
        found = importlib.util.find_spec("vlmeval")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("ms-vlmeval is not installed in this environment")
        folder = Path(found.origin).parent
        _open_packages(folder, "vlmeval", "vlmeval.dataset", "vlmeval.vlm")
        dataset: Any = sys.modules["vlmeval.dataset"]
        dataset.DATASET_TYPE = lambda name, *, default="MCQ": self._types.get(
            name, (default, "")
        )[0]
        dataset.DATASET_MODALITY = lambda name, *, default="IMAGE": self._types.get(
            name, ("", default)
        )[1]
        self._device = importlib.import_module("processor_only").run_without_cuda()
        module = importlib.import_module(f"vlmeval.vlm.{order['module']}")
        self._model = getattr(module, order["class_name"])(**order["arguments"])
        self._set_sampling(order)
        if hasattr(self._model, "set_dump_image"):
            self._model.set_dump_image(lambda line: list(self._images))

    def _set_sampling(self, order: dict[str, Any]) -> None:
        """Let the options hold where the class keeps such settings openly."""
        for name in ("generate_kwargs", "kwargs"):
            settings = getattr(self._model, name, None)
            if not isinstance(settings, dict):
                continue
            if "max_new_tokens" in settings:
                settings["max_new_tokens"] = order["max_tokens"]
            if order["temperature"] == 0:
                settings["do_sample"] = False
                for each in ("temperature", "top_p", "top_k"):
                    if each in settings:
                        settings[each] = None
            elif "temperature" in settings:
                settings["temperature"] = order["temperature"]

    def describe(self) -> str:
        """Describe what was loaded, and where."""
        return f"{type(self._model).__name__} of ms-vlmeval on {self._device}"

    def answer(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer prompts one by one; one that cannot be answered brings an error."""
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: dict[str, Any]) -> dict[str, Any]:
        dataset = prompt["dataset"]
        kind = KINDS.get(prompt["kind"], "VQA")
        self._types[dataset] = (kind, prompt["modality"].upper())
        try:
            text = self._say(prompt, dataset)
        except Exception as error:
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        return {"text": str(text), "finish_reason": "stop"}

    def _say(self, prompt: dict[str, Any], dataset: str) -> object:
        """Answer a question, or the last one of a conversation so far.

        The class's `chat` (vlm/base.py:134) would drop the first turns where it fails.
        """
        if prompt["kind"] != "conversation":
            return self._model.generate(self._message(prompt), dataset=dataset)
        if not hasattr(self._model, "chat_inner"):
            raise TypeError("the class holds no conversation: it has no chat_inner")
        messages = []
        for turn, reply in zip_longest(prompt["turns"], prompt["replies"]):
            messages.append({"role": "user", "content": _values(turn)})
            if reply is not None:
                said = [{"type": "text", "value": reply}]
                messages.append({"role": "assistant", "content": said})
        return self._model.chat_inner(messages, dataset=dataset)

    def _message(self, prompt: dict[str, Any]) -> list[dict[str, str]]:
        """Return the prompt as the class wants it: its own where it builds one."""
        dataset, model = prompt["dataset"], self._model
        (turn,) = prompt["turns"]
        own = getattr(model, "use_custom_prompt", lambda dataset: False)
        if prompt["modality"] == "image" and own(dataset):
            paths = [part["path"] for part in turn if part["kind"] == "image"]
            self._images = paths
            line = rows(prompt["rows"])[prompt["index"]]
            message: list[dict[str, str]] = model.build_prompt(line, dataset=dataset)
            return message
        return _values(turn)


def _values(turn: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a turn as ms-vlmeval's classes take it."""
    return [
        {"type": part["kind"], "value": part.get("text") or part.get("path", "")}
        for part in turn
    ]


@cache
def rows(path: str) -> dict[str, Any]:
    """Read a dataset's rows as ms-vlmeval does, by their index."""
    project = Path(__file__).resolve().parents[2]
    _open_packages(project, "pytest_vlmeval", "pytest_vlmeval.sandbox")
    row_format: Any = importlib.import_module("pytest_vlmeval.sandbox.rows")
    table = row_format.read_frame(Path(path))
    return {str(line["index"]): line for _, line in table.iterrows()}


def _open_packages(folder: Path, *names: str) -> None:
    """Let modules of packages be imported without the packages' own `__init__`."""
    for name in names:
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
