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
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import describe, printable
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.endings import (
    TOOL_CALLS,
    UNCLOSED_THOUGHT,
    calls_tools,
    find_ending,
    is_filter_code,
)
from pytest_vlmeval.models.thinking import split_thoughts
from pytest_vlmeval.option_values import ApiKey
from pytest_vlmeval.prompt_settings import AS_IT_IS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.models.endings import Ending
    from pytest_vlmeval.models.refusals import Member
    from pytest_vlmeval.prompt_settings import Prompting, TagPair
    from pytest_vlmeval.prompts import PromptPart, Turn

WORDS_LIMIT = 500  # characters of a server's own words in an error text
RETRY_AFTER_LIMIT_S = 300.0
MOST_CLEANED = 20_000  # characters of them that are looked through
REASON_LIMIT = 80  # characters of a finish_reason that are kept
# What no reply has in tokens. Sums over turns and samples fit into any database.
COUNT_LIMIT = 100_000_000
# How deep parts of a content may hold parts.
DEPTH_LIMIT = 5
_AS_IF_WHOLE: tuple[Ending, ...] = ("complete", "unknown")
_BASE64 = re.compile(
    r"data:[\w.+/-]{1,80};base64,[A-Za-z0-9+/_=-]*|[A-Za-z0-9+/_=-]{120,}"
)
# Neither UTF-8 has halves of characters, nor a database null.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")


class BodyWriter:
    """Writes request bodies; what all requests share is written once.

    `left_out` are members that no request has, `max_tokens_name` is what the token
    limit is called.
    """

    def __init__(
        self,
        model: str,
        max_tokens: int | None,
        temperature: float | None,
        left_out: Collection[str] = (),
        max_tokens_name: str = "max_tokens",
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._left_out = left_out
        self.max_tokens_name = max_tokens_name
        self._opening = self._open(max_tokens, temperature, None, "")

    def sends(self, member: Member, request: Request) -> bool:
        """Whether the body of a request has a token limit, or a temperature."""
        own = {"max_tokens": self._max_tokens, "temperature": self._temperature}
        value = getattr(request, member)
        value = own[member] if value is None else value
        return value is not None and member not in self._left_out

    def _open(
        self,
        max_tokens: int | None,
        temperature: float | None,
        system: str | None,
        extra_body: str,
    ) -> bytes:
        """Give a body as far as the first message of the user."""
        members: dict[str, object] = {
            "model": self._model,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        shared = {
            self.max_tokens_name if name == "max_tokens" else name: value
            for name, value in members.items()
            if value is not None and name not in self._left_out
        }
        if extra_body:
            shared |= json.loads(extra_body)
        first = ""
        if system is not None:
            first = json.dumps({"role": "system", "content": system}) + ", "
        opening = f"{json.dumps(shared)[:-1]}, " if shared else "{"
        return f'{opening}"messages": [{first}'.encode()

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
        request bounds, or sends as ms-vlmeval does.
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
    """Give an image as the options send it."""
    if prompting.leaves_images:
        return data, part.media_type
    from pytest_vlmeval.models.pictures import as_ms_vlmeval, fit_picture

    if prompting.images == "as-ms-vlmeval":
        try:
            jpeg = as_ms_vlmeval(data, part.saved_as, prompting.image_size)
        except (OSError, ValueError) as error:
            raise input_error(
                f"image {part.media} cannot be sent as ms-vlmeval sends it: {error}. "
                "ms-vlmeval cannot send it either; --vlm-images=original "
                "sends the bytes that the dataset has."
            ) from None
        return jpeg, "image/jpeg"
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

    `secrets` are texts that no error may show, though a server may repeat them.
    """

    def __init__(self, source: str, *secrets: str | None) -> None:
        self._source = source
        # A key with a quote in it stands escaped in a JSON body.
        forms = {
            ApiKey(form)
            for secret in secrets
            if secret
            for form in (secret, json.dumps(secret)[1:-1])
        }
        # One may be a part of another, which would be left with its rest.
        self._secrets = sorted(forms, key=len, reverse=True)

    def read(self, body: bytes, more_tags: Sequence[TagPair] | None = ()) -> Reply:
        """Read the body of a 200; `RequestError` if it holds no answer.

        That is "aborted" where the server broke the answer off, else "protocol":
        whatever a body holds, it is no other exception. `more_tags` are around
        thoughts too.
        """
        try:
            return self._read(body, more_tags)
        except RequestError:
            raise
        except Exception as error:
            raise self._error(f"what cannot be read: {describe(error)}") from None

    def _read(self, body: bytes, more_tags: Sequence[TagPair] | None) -> Reply:
        choice, usage, fingerprint = self._first_choice(body)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._error("a choice without a message")
        finish_reason = self._finish_reason(choice)
        said = _read_content(message.get("content"))
        if said is None:
            found = type(message["content"]).__name__
            raise self._error(f"a content that is no text but of the type {found}")
        thought = _first_text(message, "reasoning_content", "reasoning", "thinking")
        thought = thought or _text_of(message.get("reasoning_details"))
        thoughts = split_thoughts(said.text, more_tags)
        text = thoughts.answer
        # How the server says that it ended comes first: broken off, filtered, cut off.
        if not thoughts.closed and find_ending(finish_reason) in _AS_IF_WHOLE:
            finish_reason = UNCLOSED_THOUGHT
        refusal = _first_text(message, "refusal") or said.refusal
        if refusal.strip():
            text, finish_reason = "\n".join(filter(None, (refusal, text))), "refusal"
        elif not text.strip() and (
            message.get("tool_calls") or message.get("function_call")
        ):
            finish_reason = TOOL_CALLS
        ending = find_ending(finish_reason)
        if ending == "broken_off":
            raise self._aborted(finish_reason, choice, text)
        reasoning = "\n".join(
            filter(None, (thought, said.reasoning, thoughts.reasoning))
        )
        is_nothing = message.get("content") is None and not (reasoning or text)
        is_whole = ending in _AS_IF_WHOLE and not calls_tools(finish_reason)
        if is_nothing and is_whole:
            raise self._error("null content")
        return Reply(
            text=_UNSTORABLE.sub("\ufffd", text),
            finish_reason=finish_reason,
            reasoning=_UNSTORABLE.sub("\ufffd", reasoning),
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            system_fingerprint=fingerprint,
        )

    def _finish_reason(self, choice: Mapping[str, object]) -> str:
        """Return the reason in one line, "stop" where there is none."""
        reason = choice.get("finish_reason")
        if isinstance(reason, dict):  # as SGLang has it: {"type": "length", ...}
            reason = reason.get("type")
        if reason is None:
            reason = ""
        if not isinstance(reason, str):
            found = type(reason).__name__
            raise self._error(
                f"a finish_reason that is no text but of the type {found}"
            )
        return printable(" ".join(reason.split())[:REASON_LIMIT]) or "stop"

    def _aborted(
        self, finish_reason: str, choice: Mapping[str, object], text: str
    ) -> RequestError:
        """Name an answer that the server did not finish; another try may do better."""
        error = choice.get("error")
        words = f": {self._clean(_words({'error': error}))}" if error else ""
        began = f"; it began: {self._clean(text[:200])}" if text.strip() else ""
        return RequestError(
            f"{self._source} broke the answer off (finish_reason {finish_reason!r})"
            f"{words}{began}",
            kind="aborted",
            retryable=True,
        )

    def bug(self, error: Exception) -> RequestError:
        """Name any other exception on the way of one request, which fails alone."""
        return RequestError(
            f"asking {self._source} failed: {self._clean(describe(error))}",
            kind="bug",
            retryable=False,
        )

    def is_filtered(self, body: bytes) -> bool:
        """Whether an error body says that a filter stopped the prompt."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return False
        error = value.get("error") if isinstance(value, dict) else None
        if not isinstance(error, dict):
            error = value if isinstance(value, dict) else {}
        inner = error.get("innererror")
        codes = [error.get("code"), inner.get("code") if isinstance(inner, dict) else 0]
        return any(map(is_filter_code, codes))

    def explain_no_completion(self, body: bytes) -> RequestError | None:
        """Return what is wrong with a 200 that is no completion; None if it is one.

        Whatever its message holds: a short one may be empty, or cut off in a thought.
        """
        try:
            self._first_choice(body)
        except RequestError as error:
            return error
        return None

    def words(self, body: bytes) -> str:
        """Give an error body's own words in one line, "" if there are none.

        Reads OpenAI's `error.message`, swift's bare `message`, FastAPI's `detail`,
        else the text as it is. At most `WORDS_LIMIT` characters, without the
        secret and base64 data.
        """
        text = body.decode("utf-8", errors="replace")
        try:
            value = json.loads(text)
            words = _words(value) if isinstance(value, dict) else text
        except (ValueError, RecursionError):
            words = text
        return self._clean(words)

    def _clean(self, words: str) -> str:
        words = words[:MOST_CLEANED]
        for secret in self._secrets:
            words = words.replace(secret, "***")
        words = " ".join(_BASE64.sub("<base64 data>", words).split())
        if len(words) > WORDS_LIMIT:
            words = words[: WORDS_LIMIT - 1] + "…"
        return printable(words)

    def _first_choice(
        self, body: bytes
    ) -> tuple[dict[str, object], dict[str, object], str]:
        """Give the first choice of a completion, its usage and system fingerprint."""
        try:
            completion = json.loads(body)
        except RecursionError:
            raise self._error("JSON that is nested too deep to be read") from None
        except ValueError:  # truncated, no JSON at all, or not UTF-8
            shown = self.words(body) or "an empty body"
            raise self._error(f"what is not JSON: {shown}") from None
        choices = completion.get("choices") if isinstance(completion, dict) else None
        choice = choices[0] if choices and isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise self._error(f"no choices: {self.words(body) or 'an empty message'}")
        usage = completion.get("usage")
        fingerprint = completion.get("system_fingerprint")
        return (
            choice,
            usage if isinstance(usage, dict) else {},
            printable(fingerprint[:200]) if isinstance(fingerprint, str) else "",
        )

    def _error(self, found: str) -> RequestError:
        return RequestError(
            f"{self._source} answered 200 with {found}", kind="protocol", retryable=True
        )


class _Content(NamedTuple):
    """What a message holds: its answer, what it thought, why it refuses."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""


def _read_content(content: object) -> _Content | None:
    """Read a text, or parts of one of which some hold thoughts; None for another."""
    if content is None or isinstance(content, str):
        return _Content(content or "")
    parts = [content] if isinstance(content, dict) else content
    if not isinstance(parts, list):
        return None
    found: dict[str, list[str]] = {"text": [], "reasoning": [], "refusal": []}
    for part in parts:
        if isinstance(part, str):
            found["text"].append(part)
        elif isinstance(part, dict):
            found[_kind(part)].append(_text_of(part))
    return _Content(**{kind: "".join(texts) for kind, texts in found.items()})


def _kind(part: Mapping[str, object]) -> str:
    """Say what a part of a content is: "text", "reasoning" or "refusal"."""
    kind = str(part.get("type", "text")).lower()
    if kind == "refusal":
        return kind
    is_thought = "reason" in kind or "think" in kind or "thought" in kind
    return "reasoning" if is_thought or part.get("thought") is True else "text"


def _text_of(part: object, depth: int = 0) -> str:
    """Return the text of a part, which may lie in parts of its own."""
    if isinstance(part, str):
        return part
    if depth > DEPTH_LIMIT:
        return ""
    if isinstance(part, list):
        return "".join(_text_of(each, depth + 1) for each in part)
    if not isinstance(part, dict):
        return ""
    for name in ("text", "thinking", "reasoning", "content", "summary", "refusal"):
        if found := _text_of(part.get(name), depth + 1):
            return found
    return ""


def _first_text(message: Mapping[str, object], *names: str) -> str:
    """Return the first member of these names that is a text with something in it."""
    texts = (message.get(name) for name in names)
    return next((each for each in texts if isinstance(each, str) and each), "")


def _count(usage: Mapping[str, object], name: str) -> int:
    """Return a count of tokens, 0 where there is none that can be one."""
    value = usage.get(name)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value <= COUNT_LIMIT else 0


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
