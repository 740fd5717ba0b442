"""The bodies of the test server's answers, right and wrong ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal

from tests.support.server import judge
from tests.support.server.script import KEEP, Fault, Rule, Script, Shape

if TYPE_CHECKING:
    from pytest_vlmeval.models.demo import DemoModel
    from tests.support.server.records import Prompt

# More threads than processors only take the model's time from each other.
_MODEL_SLOTS = threading.Semaphore(2)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """An HTTP answer; `body` is sent as JSON unless it is bytes already."""

    status: int = 200
    body: object = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Give the bytes to send."""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


def answer(
    script: Script,
    rule: Rule | None,
    body: Mapping[str, object],
    prompt: Prompt,
    model: DemoModel | None,
) -> Outcome:
    """Answer a prompt: by rule, by table, by the model, else with the default."""
    if body.get("model") not in script.models:
        served = list(script.models)
        return failure(
            400, "swift", f"`{body.get('model')}` is not in the model_list: `{served}`."
        )
    rule = rule or Rule()
    text = prompt.text if rule.echo else rule.answer
    if text is None:
        images = [content for _, content in prompt.images]
        text = script.answer_for(prompt.text, images)
    if text is None and script.judge is not None:
        text = judge.reply(prompt.text, script.judge)
    if text is None and script.replies:
        text = judge.scripted(prompt.text, script.replies)
    if text is None and model is not None:
        return _generate(model, body, prompt)
    if text is None:
        text = script.default
    outcome = _completion(rule, text, len(prompt.text.split()), len(text.split()))
    if script.system_fingerprint is not None:
        assert isinstance(outcome.body, dict)
        outcome.body["system_fingerprint"] = script.system_fingerprint
    return outcome


def _generate(model: DemoModel, body: Mapping[str, object], prompt: Prompt) -> Outcome:
    texts, images = iter(prompt.texts), iter(prompt.images)
    parts: list[tuple[Literal["text", "image"], str | bytes]] = [
        ("text", next(texts)) if kind == "text" else ("image", next(images)[1])
        for kind in prompt.order
    ]
    max_tokens = body.get("max_tokens", 64)
    assert isinstance(max_tokens, int)
    try:
        with _MODEL_SLOTS:
            made = model.generate(parts, max_tokens)
    except ValueError as problem:
        return failure(400, "swift", str(problem))
    rule = Rule(finish_reason=made.finish_reason)
    return _completion(rule, made.text, made.prompt_tokens, made.completion_tokens)


def _completion(rule: Rule, text: str, asked: int, answered: int) -> Outcome:
    if rule.raw is not None:
        return Outcome(body=rule.raw.encode())
    message: dict[str, object] = {"role": "assistant"}
    message["content"] = None if rule.null_content else text
    if rule.reasoning is not None:
        message["reasoning_content"] = rule.reasoning
    choice = {"index": 0, "message": message}
    usage = {"prompt_tokens": asked, "completion_tokens": answered}
    return Outcome(
        body={
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "choices": [
                rule.choice or choice | {"finish_reason": rule.finish_reason or "stop"}
            ],
            "usage": rule.usage or usage | {"total_tokens": asked + answered},
        }
    )


def models(script: Script) -> Outcome:
    """List the served names."""
    data = [{"id": name, "object": "model", **script.entry} for name in script.models]
    return Outcome(body={"object": "list", "data": data})


def error(rule: Rule) -> Outcome:
    """Give the HTTP error that a rule asks for.

    `retry_after` of the form "date+2" becomes the HTTP date in two seconds.
    """
    outcome = failure(rule.status, rule.shape, rule.message)
    if rule.raw is not None:
        outcome.body = rule.raw.encode()
    if rule.body != KEEP:
        outcome.body = rule.body
    if rule.location is not None:
        outcome.headers["Location"] = rule.location
    if rule.retry_after is not None:
        value = rule.retry_after
        if value.startswith("date+"):
            moment = time.time() + float(value.removeprefix("date+"))
            value = formatdate(moment, usegmt=True)
        outcome.headers["Retry-After"] = value
    return outcome


def failure(status: int, shape: Shape, message: str) -> Outcome:
    """Give an error in the shape of swift, OpenAI, FastAPI, or as plain text."""
    if shape == "plain":
        return Outcome(status=status, body=message.encode(), content_type="text/plain")
    bodies: dict[Shape, object] = {
        "swift": {"message": message, "object": "error"},
        "openai": {"error": {"message": message, "type": "error", "code": None}},
        "detail": {"detail": [{"loc": ["body"], "msg": message, "input": "x" * 900}]},
        "empty": b"",
    }
    return Outcome(status=status, body=bodies[shape])


def wrong(rule: Rule) -> Outcome | None:
    """Give the 200 without an answer that a rule's fault names, if it names one."""
    if rule.body != KEEP:
        return Outcome(body=rule.body)
    bodies: dict[Fault | None, object] = {
        "truncated_json": b'{"id": "chatcmpl-0", "choices": [{"index": 0, "mess',
        "not_json": b"<html><body>It works!</body></html>",
        "error_body": {"error": {"message": rule.message, "code": 500}},
        "swift_error_body": {"message": rule.message, "object": "error"},
        "no_choices": {"object": "chat.completion", "choices": []},
    }
    body = bodies.get(rule.fault)
    return None if body is None else Outcome(body=body)
