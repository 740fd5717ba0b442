"""What the test server does with each request: rules, the first that fits wins."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.support.server.judge import Manner

Fault = Literal[
    "reset",  # the connection breaks before any answer
    "hang",  # no answer at all
    "hang_body",  # headers and half of the body, then nothing
    "broken_body",  # half of the body, then the connection ends
    "truncated_json",  # a complete HTTP answer whose JSON is cut
    "not_json",  # a web page
    "error_body",  # 200 with OpenAI's error object
    "swift_error_body",  # 200 with swift's
    "no_choices",
    "exit",  # the process ends
]
Shape = Literal["swift", "openai", "detail", "plain", "empty"]
KEEP = "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Conditions, all of which must hold, and what then happens.

    `images` and `videos` are how many a prompt has at least. Requests are counted
    from 1 for each path. `rate` draws for each request by its number and `seed`, so
    that a run can be repeated; `times` limits how often the rule applies. `status`
    other than 200 answers with `message` in the given shape, or the `raw` body;
    `retry_after` and `location` become those headers as they are. `choice` and `usage`
    are those of the answer, as they are. `body` is sent as JSON with any status.
    `sends` is a member that a request's body has, `tokens_below` what its `max_tokens`
    is below, `images_over` what its images have more bytes than, together.
    """

    path: str = "/chat/completions"
    contains: str | None = None
    images: int | None = None
    videos: int | None = None
    sends: str | None = None
    tokens_below: int | None = None
    images_over: int | None = None
    first: int | None = None
    after: int | None = None
    every: int | None = None
    times: int | None = None
    rate: float | None = None
    seed: int = 0

    answer: str | None = None
    echo: bool = False
    null_content: bool = False
    choice: Mapping[str, object] | None = None
    usage: Mapping[str, object] | None = None
    raw: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    latency_s: float | None = None
    status: int = 200
    shape: Shape = "swift"
    message: str = ""
    retry_after: str | None = None
    location: str | None = None
    body: object = KEEP
    fault: Fault | None = None

    def fits(
        self,
        path: str,
        text: str,
        order: Sequence[str],
        members: Mapping[str, object],
        image_bytes: int,
        number: int,
        used: int,
    ) -> bool:
        """Whether the rule applies to a request that has this number on its path.

        `order` has the types of its prompt's parts, `members` what is in its body.
        """
        return (
            path == self.path
            and (self.contains is None or self.contains in text)
            and (self.images or 0) <= order.count("image_url")
            and (self.videos or 0) <= order.count("video_url")
            and (self.sends is None or self.sends in members)
            and (self.images_over is None or image_bytes > self.images_over)
            and self._allows_too_few(members.get("max_tokens"))
            and (self.first is None or number <= self.first)
            and (self.after is None or number > self.after)
            and (self.every is None or number % self.every == 0)
            and (self.times is None or used < self.times)
            and (self.rate is None or self._draw(number) < self.rate)
        )

    def _allows_too_few(self, most: object) -> bool:
        if self.tokens_below is None:
            return True
        return isinstance(most, int) and most < self.tokens_below

    def _draw(self, number: int) -> float:
        return random.Random(f"{self.seed}/{number}").random()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that can be told to the server, all at once.

    `answers` maps the SHA-256 of a prompt's text or of its first image, or a
    substring of the text, to an answer; `default` is the answer otherwise, or the
    reply of a `judge` of that manner, or that of the first pattern of `replies` that is
    found. Every request takes `latency_s` and, for each other one in flight,
    `latency_per_request_s` (seconds). With an `api_key` other keys are refused as swift
    does. `entry` goes into each entry of the list of models,
    `system_fingerprint` into each reply.
    """

    models: Sequence[str] = ("tiny-vlm",)
    api_key: str | None = None
    default: str = "A"
    judge: Manner | None = None
    replies: Sequence[Sequence[str]] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    latency_s: float = 0.0
    latency_per_request_s: float = 0.0
    entry: Mapping[str, object] = field(default_factory=dict)
    system_fingerprint: str | None = None
    rules: Sequence[Rule] = ()

    @classmethod
    def from_json(cls, given: Mapping[str, object]) -> Script:
        """Read a script; TypeError for a name it does not know."""
        rules = given.get("rules", ())
        assert isinstance(rules, Sequence)
        values = {**given, "rules": tuple(Rule(**rule) for rule in rules)}
        unknown = values.keys() - {entry.name for entry in fields(cls)}
        if unknown:
            message = f"a script has no {sorted(unknown)}"
            raise TypeError(message)
        return cls(**values)  # type: ignore[arg-type]

    def answer_for(self, text: str, images: Sequence[bytes]) -> str | None:
        """Look the prompt up in the table."""
        for content in (text.encode(), *images[:1]):
            digest = hashlib.sha256(content).hexdigest()
            if digest in self.answers:
                return self.answers[digest]
        for part, answer in self.answers.items():
            if part in text:
                return answer
        return None
