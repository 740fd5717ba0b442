"""How requests to an endpoint are written: members renamed or left out, query, headers.

Header values and the query may be secret: no message, log or `repr` shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import ApiKey

# Members that a request has by itself, and may go without.
OPTIONAL = ("model", "max_tokens", "temperature")
# What requests are made of: options of their own, or the prompt itself.
RESERVED = (*OPTIONAL, "messages", "stream", "n")
# What stands for a member that is not sent.
NONE = "none"
SECRET_NAME = re.compile(r"(^|[_-])(api_?key|secret|password|authorization)$", re.I)
# Shorter texts would be found everywhere, and are no secrets.
SHORTEST_SECRET = 4
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_OURS = {
    *("content-type", "content-length", "content-encoding", "transfer-encoding"),
    *("host", "connection", "accept-encoding"),
}
Unsent = Literal["none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForm:
    """What a request has beside the prompt and the generation settings.

    `max_tokens_name` is the name of the token limit; None is max_tokens, until the
    server asks for another. `left_out` are members that are never sent. `query` goes
    behind the URL, `headers` to the headers.
    """

    max_tokens_name: str | None = None
    left_out: frozenset[str] = frozenset()
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may show, though a server may repeat it."""
        values = [value for _, value in (*self.query, *self.headers)]
        # "Bearer KEY" is repeated as KEY too.
        words = [word for value in values for word in (value, *value.split())]
        forms = [form for word in words for form in (word, quote(word, safe=""))]
        return tuple(ApiKey(form) for form in forms if len(form) >= SHORTEST_SECRET)


PLAIN = RequestForm()


def parse_member(text: str) -> str:
    """Read the name of a member of the body; ValueError for another text."""
    if not _MEMBER.fullmatch(text) or text in set(RESERVED) - {"max_tokens"}:
        raise ValueError
    return text


def parse_query(text: str) -> tuple[tuple[str, str], ...]:
    """Read `NAME=VALUE` pairs, joined by `&`; ValueError for another text."""
    pairs = parse_qsl(text.lstrip("?"), keep_blank_values=True, strict_parsing=True)
    if not all(name for name, _ in pairs):
        raise ValueError
    return tuple((name, ApiKey(value)) for name, value in pairs)


def parse_body(text: str) -> str:
    """Read a JSON object that is added to requests; ValueError for another text.

    A member that is null is left out, those that a request has by itself too.
    """
    body = json.loads(text)
    if not isinstance(body, dict) or not body or find_secret(body) is not None:
        raise ValueError
    if any(
        name in RESERVED and (value is not None or name not in OPTIONAL)
        for name, value in body.items()
    ):
        raise ValueError
    return json.dumps(body, sort_keys=True)


def find_secret(value: object) -> str | None:
    """Return the name of a member, at any depth, that seems to hold a key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if SECRET_NAME.search(str(name)) and isinstance(each, str):
                return str(name)
            if (found := find_secret(each)) is not None:
                return found
    elif isinstance(value, list | tuple):
        for each in value:
            if (found := find_secret(each)) is not None:
                return found
    return None


def split_body(text: str | None) -> tuple[str, frozenset[str]]:
    """Return the JSON of the members that are sent, and those that are left out."""
    body: dict[str, Any] = json.loads(text) if text else {}
    sent = {name: value for name, value in body.items() if value is not None}
    left_out = frozenset(body.keys() - sent.keys())
    return json.dumps(sent, sort_keys=True) if sent else "", left_out


def read_headers(file: Path, given: str) -> tuple[tuple[str, str], ...]:
    """Read a file of `Name: value` lines; `given` is how it was named.

    Blank lines and lines that begin with # are none. `VlmEvalError` names the line and
    never what it holds.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise VlmEvalError(f"{given} is not a text in UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise VlmEvalError(
            f"{given} cannot be read ({reason}). Give a readable text file that holds "
            "a header a line: Name: value."
        ) from None
    headers: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        problem = ""
        if not colon or not _HEADER.fullmatch(name):
            problem = "is not a header: write Name: value"
        elif name.lower() in _NOT_OURS:
            problem = f"gives {name}, which each request sets by itself. Leave it out"
        elif name.lower() in headers:
            problem = f"gives {name} a second time"
        elif not value or not (value.isascii() and value.isprintable()):
            problem = f"gives {name} a value that cannot be sent: printable ASCII can"
        if problem:
            raise VlmEvalError(f"{given}, line {number} {problem}.")
        headers[name.lower()] = name, ApiKey(value)
    if not headers:
        raise VlmEvalError(f"{given} holds no header. Write one a line: Name: value.")
    return tuple(headers.values())


def choose_form(
    values: Mapping[str, Any],
    left_out: frozenset[str],
    headers: tuple[tuple[str, str], ...],
    *,
    judge: bool = False,
) -> RequestForm:
    """Return what the options say of the model's requests, or of the judge's."""
    prefix = "judge-" if judge else ""
    return RequestForm(
        max_tokens_name=values[f"{prefix}max-tokens-name"],
        left_out=left_out,
        query=values[f"{prefix}api-query"] or (),
        headers=headers,
    )


def check_key(
    api_key: str | None, headers: tuple[tuple[str, str], ...], *, judge: bool = False
) -> None:
    """Raise `VlmEvalError` where a key and a header would be sent in one place."""
    if api_key and any(name.lower() == "authorization" for name, _ in headers):
        prefix = "judge-" if judge else ""
        raise VlmEvalError(
            f"--vlm-{prefix}api-header-file gives Authorization, and so does the API "
            f"key (VLM_{prefix.upper().replace('-', '_')}API_KEY, "
            f"--vlm-{prefix}api-key-file). Leave one of them out."
        )
