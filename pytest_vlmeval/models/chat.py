"""The chat-completions format: prompts to request bodies, response bodies to replies.

Pure functions without any network, so that `endpoint.py` only has to send and to
say what became of it. Nothing here lets base64 data into an error's text.
"""

from __future__ import annotations

import html
import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import describe, printable
from pytest_vlmeval.models.client import (
    TOOL_CALLS,
    UNCLOSED_THOUGHT,
    Reply,
    RequestError,
    calls_tools,
    find_ending,
)
from pytest_vlmeval.settings.groups import AS_IT_IS, TagPair
from pytest_vlmeval.settings.option import ApiKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from PIL.Image import Image as PillowImage

    from pytest_vlmeval.models.client import Ending, Request
    from pytest_vlmeval.records import PromptPart, Turn
    from pytest_vlmeval.settings.groups import Prompting

# What models put around their thoughts, in any case: Qwen, DeepSeek, GLM and most
# others; Claude's prompts; EXAONE; Seed-OSS; Magistral; Kimi; Cohere; OpenThinker;
# MedGemma.
THINK_TAGS: tuple[TagPair, ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>", "<unused95>"),
)
# gpt-oss: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final
_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?P<name>\w++)[^<]{0,200}"
    r"(?:<\|constrain\|>[^<]{0,200})?<\|message\|>"
)
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")
_FINAL = "final"
# As in <think >.
_BLANKS = re.compile(r"[ \t]{1,8}>")
# The same where the server leaves out special tokens.
_BARE_CHANNELS = re.compile(r"\s*analysis(?P<thoughts>.*)assistantfinal", re.DOTALL)


class Thoughts(NamedTuple):
    """A text in two; `closed` is false where it ends in the middle of the thoughts."""

    reasoning: str
    answer: str
    closed: bool


class _Tag(NamedTuple):
    """A tag in a text, of the pair of that number."""

    pair: int
    opens: bool
    start: int
    end: int


def split_thoughts(text: str, more: Sequence[TagPair] | None = ()) -> Thoughts:
    """Part a text at the tags around thoughts, `THINK_TAGS` and `more`.

    With None it is not parted.

    The tag that opens them may be missing: templates that put it at the end of the
    prompt leave it out of the answer. Where it stands in the middle of a text it needs
    the one that closes, and a tag in quotes is only mentioned. Without any tag there
    are no thoughts.
    """
    if more is None:
        return Thoughts("", text, closed=True)
    channels = _split_channels(text)
    if channels is not None:
        return channels
    tags = list(_find_tags(text, tuple(more)))
    if not tags:
        return Thoughts("", text, closed=True)
    return _split(text, tags)


def _split(text: str, tags: Sequence[_Tag]) -> Thoughts:
    thoughts: list[str] = []
    answers: list[str] = []
    last_closing = {tag.pair: n for n, tag in enumerate(tags) if not tag.opens}
    said = False  # whether anything of an answer came so far
    position = number = 0
    while number < len(tags):
        tag = tags[number]
        if last_closing.get(tag.pair, -1) < number:  # never closed
            if not said and not text[position : tag.start].strip():
                thoughts.append(text[tag.end :])
                return Thoughts("".join(thoughts).strip(), "", closed=False)
            said = True
            number += 1  # only mentioned, in the middle of an answer
            continue
        last = _closing(tags, number)
        if tag.opens:
            answers.append(text[position : tag.start])
            said = said or bool(answers[-1].strip())
            thoughts.append(text[tag.end : tags[last].start])
        else:
            thoughts += [*answers, text[position : tags[last].start]]
            answers, said = [], False
        position = tags[last].end
        number = last + 1
    if not thoughts:
        return Thoughts("", text, closed=True)
    answers.append(text[position:])
    return Thoughts("".join(thoughts).strip(), "".join(answers).strip(), closed=True)


def _closing(tags: Sequence[_Tag], number: int) -> int:
    """Return the number of the tag that ends the thoughts of this one.

    Thoughts may mention tags, those that close them too: of several in a row the last
    one counts. A closing tag that nothing opened ends all before it.
    """
    found = number
    for later in range(number + 1, len(tags)):
        if tags[later].pair == tags[number].pair:
            if not tags[later].opens:
                found = later
            elif not tags[found].opens:
                break
    return found


def _find_tags(text: str, more: tuple[TagPair, ...]) -> Iterator[_Tag]:
    pattern, names = _pattern(more)
    for found in pattern.finditer(text):
        if found["tag"] is not None:
            pair, opens = names[_BLANKS.sub(">", found["tag"].lower())]
            yield _Tag(pair, opens, found.start(), found.end())


@lru_cache(maxsize=8)
def _pattern(
    more: tuple[TagPair, ...],
) -> tuple[re.Pattern[str], dict[str, tuple[int, bool]]]:
    """Return what finds every tag but those in quotes, and what each of them is."""
    names: dict[str, tuple[int, bool]] = {}
    for number, (opening, closing) in enumerate((*more, *THINK_TAGS)):
        names.setdefault(_BLANKS.sub(">", opening.lower()), (number, True))
        names.setdefault(_BLANKS.sub(">", closing.lower()), (number, False))
    longest_first = sorted(names, key=len, reverse=True)
    any_tag = "|".join(
        re.escape(name[:-1]) + r"[ \t]{0,8}>" if name.endswith(">") else re.escape(name)
        for name in longest_first
    )
    quoted = rf"(?P<quote>[`\"'])(?:{any_tag})(?P=quote)"
    return re.compile(rf"{quoted}|(?P<tag>{any_tag})", re.IGNORECASE), names


def _split_channels(text: str) -> Thoughts | None:
    """Part the channels of gpt-oss, whose final one is the answer; None without any."""
    if "<|channel|>" not in text:
        bare = _BARE_CHANNELS.match(text)
        if bare is None:
            return None
        return Thoughts(bare["thoughts"].strip(), text[bare.end() :].strip(), True)
    channels = list(_CHANNEL.finditer(text))
    if not channels:
        return None
    thoughts = [text[: channels[0].start()]]
    answers: list[str] = []
    ends = [each.start() for each in channels[1:]] + [len(text)]
    for channel, end in zip(channels, ends, strict=True):
        said = text[channel.end() : end]
        said = said[: found.start()] if (found := _CHANNEL_ENDS.search(said)) else said
        (answers if channel["name"].lower() == _FINAL else thoughts).append(said)
    reasoning = "\n".join(each.strip() for each in thoughts if each.strip())
    return Thoughts(reasoning, "".join(answers).strip(), closed=bool(answers))


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
# A proxy's page in place of an error; it names itself in its title, or its first line.
_HTML = re.compile(r"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(
    r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL
)
TITLE_LIMIT = 80  # characters of it
PAGE_LIMIT = 4_000  # characters of a page in which it is looked for
# Neither UTF-8 has halves of characters, nor a database null.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")


@dataclass(frozen=True, slots=True)
class BodyWriter:
    """Writes request bodies; `left_out` are members that no request has."""

    model: str
    max_tokens: int | None
    temperature: float | None
    left_out: Collection[str] = ()

    def members(self, request: Request) -> dict[str, object]:
        """Return what a body has beside the messages and the user's own members."""
        limit, temperature = request.max_tokens, request.temperature
        members: dict[str, object] = {
            "model": self.model,
            "max_tokens": self.max_tokens if limit is None else limit,
            "temperature": self.temperature if temperature is None else temperature,
        }
        return {
            name: value
            for name, value in members.items()
            if value is not None and name not in self.left_out
        }

    def write(self, request: Request, limit_name: str = "max_tokens") -> bytes:
        """Return the JSON body of a prompt; `RequestError` if an image is unreadable.

        `limit_name` is what the token limit is called. Images and videos are the bytes
        of their files, but for images that the request bounds, or sends as ms-vlmeval
        does.
        """
        members = self.members(request)
        if "max_tokens" in members:
            members[limit_name] = members.pop("max_tokens")
        members |= json.loads(request.prompting.extra_body or "{}")
        opening = f"{json.dumps(members)[:-1]}, " if members else "{"
        pieces = [f'{opening}"messages": ['.encode()]
        if request.system is not None:
            system = json.dumps({"role": "system", "content": request.system})
            pieces.append(f"{system},".encode())
        for turn, reply in zip_longest(request.turns, request.replies):
            pieces += _turn_pieces(turn, request)
            if reply is not None:
                said = json.dumps({"role": "assistant", "content": reply})
                pieces.append(f",{said},".encode())
        pieces.append(b"]}")
        return b"".join(pieces)


def _turn_pieces(turn: Turn, request: Request) -> Iterator[bytes]:
    """Yield a message of the user; one of texts alone is one string.

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
            f"{part.kind} {part.media} has no media type: {part.media_type}"
        )
    data = read_media(request.media_folder, part)
    media_type, detail = part.media_type, ""
    if part.kind == "image" and request.prompting != AS_IT_IS:
        data, media_type = _fit(part, data, request.prompting)
        if request.prompting.image_detail:
            detail = f', "detail": "{request.prompting.image_detail}"'
    kind = f"{part.kind}_url"
    opening = f'{{"type": "{kind}", "{kind}": {{"url": "data:{media_type};base64,'
    # Base64 needs no JSON escapes; joined as bytes, an image is copied only once.
    return opening.encode(), b64encode(data), f'"{detail}}}}}'.encode()


def _fit(part: PromptPart, data: bytes, prompting: Prompting) -> tuple[bytes, str]:
    """Return an image as the options send it."""
    if prompting.leaves_images:
        return data, part.media_type

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
        return fit_image(data, part.media_type, prompting)
    except (OSError, ValueError) as error:
        raise input_error(
            f"image {part.media} cannot be made smaller: {error}"
        ) from None


def read_media(folder: Path, part: PromptPart) -> bytes:
    """Read an image or video; `RequestError` of kind "input" if it cannot be."""
    try:
        return (folder / part.media).read_bytes()
    except OSError as error:
        raise input_error(
            f"{part.kind} {part.media} cannot be read: {error.strerror or error}"
        ) from None


def input_error(message: str) -> RequestError:
    """Name a request that cannot be made or read, however often it is tried."""
    return RequestError(message, kind="input")


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
        choice, usage, fingerprint = self.first_choice(body)
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
        )

    def bug(self, error: Exception) -> RequestError:
        """Name any other exception on the way of one request, which fails alone."""
        return RequestError(
            f"asking {self._source} failed: {self._clean(describe(error))}", kind="bug"
        )

    def words(self, body: bytes) -> str:
        """Return an error body's own words in one line, "" if there are none.

        Reads OpenAI's `error.message`, swift's bare `message`, FastAPI's `detail`, of
        a proxy's HTML page the title, else the text as it is. At most `WORDS_LIMIT`
        characters, without the secret and base64 data.
        """
        text = body.decode("utf-8", errors="replace")
        if _HTML.match(text):
            return self._clean(_name_page(text))
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

    def first_choice(
        self, body: bytes
    ) -> tuple[dict[str, object], dict[str, object], str]:
        """Return the first choice of a completion, its usage and system fingerprint.

        `RequestError` if the body of a 200 is no completion.
        """
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
            f"{self._source} answered 200 with {found}", kind="protocol"
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
    """Describe what a part of a content is: "text", "reasoning" or "refusal"."""
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


def _name_page(text: str) -> str:
    """Name an HTML page by its title, or by how its text begins."""
    text = text[:PAGE_LIMIT]
    title = _TITLE.search(text)
    shown = html.unescape(title[1] if title else _UNSEEN.sub(" ", text))
    shown = " ".join(shown.split())
    if len(shown) > TITLE_LIMIT:
        shown = shown[: TITLE_LIMIT - 3] + "..."
    return f"HTML page {shown!r}" if shown else "HTML page without a text"


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


JPEG_QUALITY = 95
# What ms-vlmeval enlarges the shorter edge of an image to (smp/vlm.py:123), and the
# longest side of a JPEG.
SHORTEST_EDGE = 100
LONGEST_SIDE = 65_500
# What it makes RGB of; an image in another mode is encoded as it is.
_CONVERTED = ("RGBA", "P", "LA")
# A PNG holds the pixels of these as they are.
_LOSSLESS = ("RGB", "L", "1")
# The formats whose images stay what they are; all others become PNG.
_KEPT = {"image/jpeg": "JPEG", "image/webp": "WEBP", "image/png": "PNG"}


def target_size(width: int, height: int, prompting: Prompting) -> tuple[int, int]:
    """Return the size, in pixels, of an image within both bounds; never a larger one.

    The longest side is bounded as `img_size` of ms-vlmeval's API models does, the area
    as `max_pixels` of Qwen's processors.
    """
    scale = 1.0
    if prompting.image_size is not None:
        scale = min(scale, prompting.image_size / max(width, height))
    if prompting.max_pixels is not None:
        scale = min(scale, (prompting.max_pixels / (width * height)) ** 0.5)
    if scale == 1:
        return width, height
    # Rounded down, so that the bounds hold.
    return max(1, int(width * scale)), max(1, int(height * scale))


@contextmanager
def _bounded_pixels() -> Iterator[None]:
    """Raise ValueError for an image of more pixels than PIL takes."""
    from PIL import Image

    try:
        yield
    # The warning is an error where pytest makes all of them such.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from None


def fit_image(data: bytes, media_type: str, prompting: Prompting) -> tuple[bytes, str]:
    """Return an image within the bounds, and its media type.

    One that is within them stays as it is, byte by byte. Raises OSError for what PIL
    cannot read, ValueError for more pixels than it takes.
    """
    from PIL import Image, ImageOps

    with _bounded_pixels(), Image.open(io.BytesIO(data)) as image:
        size = target_size(*image.size, prompting)
        if size == image.size:
            return data, media_type
        upright = ImageOps.exif_transpose(image)
        if upright.size != image.size:
            size = (size[1], size[0])
        if upright.mode not in {"RGB", "RGBA", "L"}:
            upright = upright.convert(
                "RGBA" if "transparency" in upright.info else "RGB"
            )
        smaller = upright.resize(size, Image.Resampling.LANCZOS)
    kept = _KEPT.get(media_type, "PNG")
    out = io.BytesIO()
    smaller.save(out, kept, **({} if kept == "PNG" else {"quality": JPEG_QUALITY}))
    return out.getvalue(), media_type if media_type in _KEPT else "image/png"


def as_ms_vlmeval(data: bytes, saved_as: str, image_size: int | None) -> bytes:
    """Return the bytes that an API model of ms-vlmeval sends for an image: a JPEG.

    It writes what a table's cell holds to a file, whose suffix is `saved_as`, and
    encodes that file anew (smp/vlm.py:159, :103); with "" the file is `data` itself.
    `image_size` is its `img_size`. Raises OSError or ValueError for what it cannot
    send.
    """
    from PIL import Image

    with _bounded_pixels(), Image.open(io.BytesIO(data)) as image:
        if not saved_as:
            return _encode(image, image_size)
        with _save(image, saved_as) as saved:
            return _encode(saved, image_size)


def _save(image: PillowImage, suffix: str) -> PillowImage:
    """Return an image as the file holds it in which ms-vlmeval keeps it."""
    from PIL import Image

    if image.mode in _CONVERTED:
        image = image.convert("RGB")
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise ValueError(f"Pillow writes no file that ends with {suffix}")
    if kind == "PNG" and image.mode in _LOSSLESS:
        pixels = image.copy()
        pixels.info.clear()  # a comment would go into the JPEG
        return pixels
    out = io.BytesIO()
    image.save(out, kind)
    return Image.open(out)


def _encode(image: PillowImage, image_size: int | None) -> bytes:
    """Write the JPEG that is sent.

    Its bound of 10^9 characters of base64 is left out: no image that can be prepared
    reaches it.
    """
    if image.mode in _CONVERTED:
        image = image.convert("RGB")
    if image_size is not None:
        image.thumbnail((image_size, image_size))
    width, height = image.size
    if min(width, height) < SHORTEST_EDGE:
        factor = SHORTEST_EDGE / min(width, height)
        width, height = int(width * factor), int(height * factor)
    if max(width, height) > LONGEST_SIDE:
        raise ValueError(
            f"it is {width} x {height} pixels there, and no side of a JPEG is longer "
            f"than {LONGEST_SIDE:,}"
        )
    if (width, height) != image.size:
        image = image.resize((width, height))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()
