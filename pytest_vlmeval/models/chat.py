"""The chat-completions format: prompts to request bodies, response bodies to replies.

Pure functions without any network, so that `endpoint.py` only has to send and to
say what became of it. Nothing here lets base64 data into an error's text.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import printable
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.thinking import split_thoughts
from pytest_vlmeval.option_values import ApiKey
from pytest_vlmeval.prompt_settings import AS_IT_IS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.prompt_settings import Prompting
    from pytest_vlmeval.prompts import PromptPart, Turn

WORDS_LIMIT = 500  # characters of a server's own words in an error text
RETRY_AFTER_LIMIT_S = 300.0
_BASE64 = re.compile(
    r"data:[\w.+/-]{1,80};base64,[A-Za-z0-9+/_=-]*|[A-Za-z0-9+/_=-]{120,}"
)
# Neither UTF-8 has halves of characters, nor a database null.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")


class BodyWriter:
    """Writes request bodies; what all requests share is written once."""

    def __init__(
        self, model: str, max_tokens: int | None, temperature: float | None
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._opening = self._open(max_tokens, temperature, None, "")

    def _open(
        self,
        max_tokens: int | None,
        temperature: float | None,
        system: str | None,
        extra_body: str,
    ) -> bytes:
        """Give a body as far as the first message of the user."""
        shared: dict[str, object] = {"model": self._model}
        if max_tokens is not None:
            shared["max_tokens"] = max_tokens
        if temperature is not None:
            shared["temperature"] = temperature
        if extra_body:
            shared |= json.loads(extra_body)
        first = ""
        if system is not None:
            first = json.dumps({"role": "system", "content": system}) + ", "
        return f'{json.dumps(shared)[:-1]}, "messages": [{first}'.encode()

    def _opening_for(self, request: Request) -> bytes:
        extra_body = request.prompting.extra_body
        own = (request.max_tokens, request.temperature, request.system)
        if own == (None, None, None) and not extra_body:
            return self._opening
        max_tokens, temperature, system = own
        return self._open(
            self._max_tokens if max_tokens is None else max_tokens,
            self._temperature if temperature is None else temperature,
            system,
            extra_body,
        )

    def write(self, request: Request) -> bytes:
        """Give the JSON body of a prompt; `RequestError` if a picture is unreadable.

        Pictures and videos are the bytes of their files, but for pictures that the
        request bounds.
        """
        pieces = [self._opening_for(request)]
        for turn, reply in zip_longest(request.turns, request.replies):
            pieces += _turn_pieces(turn, request)
            if reply is not None:
                said = json.dumps({"role": "assistant", "content": reply})
                pieces.append(f",{said},".encode())
        pieces.append(b"]}")
        return b"".join(pieces)


def _turn_pieces(turn: Turn, request: Request) -> Iterator[bytes]:
    """Give a message of the user; one of texts alone is one string.

    It is joined by line breaks as ms-vlmeval's API classes do.
    """
    yield b'{"role": "user", "content":'
    if all(part.kind == "text" for part in turn):
        yield json.dumps("\n".join(part.text for part in turn)).encode()
    else:
        separator = b"["
        for part in turn:
            yield separator
            separator = b","
            yield from _part_pieces(part, request)
        yield b"]"
    yield b"}"


def _part_pieces(part: PromptPart, request: Request) -> tuple[bytes, ...]:
    if part.kind == "text":
        text = json.dumps(part.text)
        return (f'{{"type": "text", "text": {text}}}'.encode(),)
    if not _MEDIA_TYPE.fullmatch(part.media_type):
        raise input_error(
            f"{_noun(part)} {part.media} has no media type: {part.media_type}"
        )
    data = read_media(request.media_folder, part)
    media_type, detail = part.media_type, ""
    if part.kind == "image" and request.prompting != AS_IT_IS:
        data, media_type = _fit(part, data, request.prompting)
        if request.prompting.image_detail:
            detail = f', "detail": "{request.prompting.image_detail}"'
    kind = f"{part.kind}_url"
    opening = f'{{"type": "{kind}", "{kind}": {{"url": "data:{media_type};base64,'
    # Base64 needs no JSON escapes; joined as bytes, a picture is copied only once.
    return opening.encode(), b64encode(data), f'"{detail}}}}}'.encode()


def _fit(part: PromptPart, data: bytes, prompting: Prompting) -> tuple[bytes, str]:
    """Give a picture within the bounds of the options, where there are any."""
    if prompting.image_size is None and prompting.max_pixels is None:
        return data, part.media_type
    from pytest_vlmeval.models.pictures import fit_picture

    try:
        return fit_picture(data, part.media_type, prompting)
    except (OSError, ValueError) as error:
        raise input_error(
            f"picture {part.media} cannot be made smaller: {error}"
        ) from None


def read_media(folder: Path, part: PromptPart) -> bytes:
    """Read a picture or video; `RequestError` of kind "input" if it cannot be."""
    try:
        return (folder / part.media).read_bytes()
    except OSError as error:
        raise input_error(
            f"{_noun(part)} {part.media} cannot be read: {error.strerror or error}"
        ) from None


def _noun(part: PromptPart) -> str:
    return "picture" if part.kind == "image" else part.kind


def input_error(message: str) -> RequestError:
    """Name a request that cannot be made or read, however often it is tried."""
    return RequestError(message, kind="input", retryable=False)


class ReplyReader:
    """Reads what a server sent back; `source` names it in the texts of errors.

    `secret` is a text that no error may show, though a server may repeat it.
    """

    def __init__(self, source: str, secret: str | None = None) -> None:
        self._source = source
        # A key with a quote in it stands escaped in a JSON body.
        forms = {secret, json.dumps(secret)[1:-1]} if secret else set()
        self._secrets = {ApiKey(form) for form in forms}

    def read(self, body: bytes) -> Reply:
        """Read the body of a 200; `RequestError` "protocol" if it holds no answer."""
        choice, usage = self._first_choice(body)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._error("a choice without a message")
        finish_reason = choice.get("finish_reason") or "stop"
        text = _text(message)
        thought = message.get("reasoning_content") or message.get("reasoning")
        if text is None:
            if not thought and finish_reason not in {"length", "content_filter"}:
                raise self._error("null content")
            text = ""
        thoughts = split_thoughts(text)
        parts = (thought if isinstance(thought, str) else "", thoughts.reasoning)
        return Reply(
            text=thoughts.answer,
            finish_reason=str(finish_reason) if thoughts.closed else "length",
            reasoning="\n".join(filter(None, parts)),
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
        )

    def words(self, body: bytes) -> str:
        """Give an error body's own words in one line, "" if there are none.

        Reads OpenAI's `error.message`, swift's bare `message`, FastAPI's `detail`,
        else the text as it is. At most `WORDS_LIMIT` characters, without the
        secret and base64 data.
        """
        text = body.decode("utf-8", errors="replace")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        words = _words(value) if isinstance(value, dict) else text
        for secret in self._secrets:
            words = words.replace(secret, "***")
        words = " ".join(_BASE64.sub("<base64 data>", words).split())
        if len(words) > WORDS_LIMIT:
            words = words[: WORDS_LIMIT - 1] + "…"
        return printable(words)

    def _first_choice(self, body: bytes) -> tuple[dict[str, object], dict[str, object]]:
        """Give the first choice of a completion, and its usage."""
        try:
            completion = json.loads(body)
        except ValueError:  # truncated, no JSON at all, or not UTF-8
            shown = self.words(body) or "an empty body"
            raise self._error(f"what is not JSON: {shown}") from None
        choices = completion.get("choices") if isinstance(completion, dict) else None
        choice = choices[0] if choices and isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise self._error(f"no choices: {self.words(body) or 'an empty message'}")
        usage = completion.get("usage")
        return choice, usage if isinstance(usage, dict) else {}

    def _error(self, found: str) -> RequestError:
        return RequestError(
            f"{self._source} answered 200 with {found}", kind="protocol", retryable=True
        )


def _text(message: Mapping[str, object]) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(
            str(part.get("text") or "") for part in content if isinstance(part, dict)
        )
    if content is None:
        content = message.get("refusal")
    return _UNSTORABLE.sub("\ufffd", content) if isinstance(content, str) else None


def _count(usage: Mapping[str, object], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _words(body: Mapping[str, object]) -> str:
    for key in ("error", "message", "detail"):
        value = body.get(key)
        if isinstance(value, dict) and "message" in value:
            value = value["message"]
        if isinstance(value, list):
            return "; ".join(_detail(item) for item in value)
        if value is not None:
            return value if isinstance(value, str) else json.dumps(value)
    return json.dumps(body)


def _detail(item: object) -> str:
    """One entry of FastAPI's list: place and message, not the input it echoes."""
    if not isinstance(item, dict):
        return str(item)
    location = item.get("loc")
    place = ".".join(map(str, location)) if isinstance(location, list) else ""
    return f"{place}: {item.get('msg', '')}" if place else str(item.get("msg", ""))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read how long a server asks to wait (seconds or an HTTP date), capped."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", text):
        seconds = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:  # "-0000", which says no zone, means UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT_S)
