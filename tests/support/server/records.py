"""What the test server was asked: counters, and one JSON line per request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.server.script import Rule, Script


@dataclass(slots=True, kw_only=True)
class Prompt:
    """The last message of a request: its text, its images and videos as bytes.

    `earlier` is what was said before it, with the role of who said it.
    """

    system: str | None = None
    earlier: list[tuple[str, Prompt]] = field(default_factory=list)
    content: str = ""  # "string" or "parts"
    order: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts, joined by line breaks."""
        return "\n".join(self.texts)


def read_prompt(body: Mapping[str, object]) -> Prompt:
    """Read the messages of a chat-completions request; the last one is the prompt."""
    messages = body["messages"]
    assert isinstance(messages, list)
    system = None
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    # The user begins and ends, and both speak in turn.
    roles = [message["role"] for message in messages]
    assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
    assert len(roles) % 2
    *earlier, prompt = [_read_message(message["content"]) for message in messages]
    prompt.system = system
    prompt.earlier = list(zip(roles, earlier, strict=False))
    return prompt


def _read_message(content: str | list[dict[str, Any]]) -> Prompt:
    if isinstance(content, str):
        return Prompt(content="string", order=["text"], texts=[content])
    prompt = Prompt(content="parts")
    for part in content:
        prompt.order.append(part["type"])
        if part["type"] == "text":
            prompt.texts.append(part["text"])
        else:
            prompt.images.append(_image(part[part["type"]]["url"]))
    return prompt


def _image(url: str) -> tuple[str, bytes]:
    head, _, data = url.partition(",")
    try:
        return head, base64.b64decode(data, validate=True)
    except binascii.Error:
        return head, b""


class Turn(NamedTuple):
    """A request under way: its rule, how many are in flight, since which `clear`."""

    rule: Rule | None
    in_flight: int
    epoch: int


class Recorder:
    """Counts requests and writes them to a file; safe to use from all threads."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._epoch = 0
        self._reset()
        if file is not None:
            file.touch()

    def clear(self) -> None:
        """Start over: no request was ever made."""
        with self._lock:
            self._reset()
            if self._file is not None:
                self._file.write_text("")

    def _reset(self) -> None:
        self._epoch += 1
        self._numbers: Counter[str] = Counter()
        self._used: Counter[int] = Counter()
        self._connections: set[object] = set()
        self._in_flight = 0
        self._max_in_flight = 0

    def begin(
        self, script: Script, path: str, text: str, record: dict[str, object]
    ) -> Turn:
        """Note a request, and choose the rule for it."""
        with self._lock:
            self._connections.add(record["connection"])
            self._numbers[path] += 1
            number = self._numbers[path]
            order = record["order"]
            assert isinstance(order, list)
            members = record["params"]
            assert isinstance(members, dict)
            images = record["images"]
            assert isinstance(images, list)
            size = sum(each["bytes"] for each in images)
            rule = None
            for index, candidate in enumerate(script.rules):
                used = self._used[index]
                if candidate.fits(path, text, order, members, size, number, used):
                    self._used[index] += 1
                    rule = candidate
                    break
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            record |= {"number": number, "in_flight": self._in_flight}
            record |= {"time": time.time(), "text": text, "path": path}
            self._write(record)
            return Turn(rule, self._in_flight, self._epoch)

    def end(self, turn: Turn) -> None:
        """Note that a request is done with, however it ended."""
        with self._lock:
            if turn.epoch == self._epoch:  # else it is forgotten already
                self._in_flight -= 1

    def counters(self) -> dict[str, object]:
        """Give what was counted since the start or the last `clear`."""
        with self._lock:
            return {
                "requests": dict(self._numbers),
                "connections": len(self._connections),
                "in_flight": self._in_flight,
                "max_in_flight": self._max_in_flight,
            }

    def _write(self, record: Mapping[str, object]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")


def describe(body: Mapping[str, object], prompt: Prompt) -> dict[str, object]:
    """Give what a record holds of a request's body: images as their SHA-256."""
    return {
        "model": body.get("model"),
        "params": {
            name: value
            for name, value in body.items()
            if name not in {"model", "messages"}
        },
        "content": prompt.content,
        "system": prompt.system,
        "order": prompt.order,
        "images": _describe_images(prompt),
        "earlier": [
            {"role": role, "text": said.text, "images": _describe_images(said)}
            for role, said in prompt.earlier
        ],
    }


def _describe_images(prompt: Prompt) -> list[dict[str, object]]:
    return [
        {
            "media_type": head.removeprefix("data:").removesuffix(";base64"),
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        for head, data in prompt.images
    ]
