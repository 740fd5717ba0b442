"""The URL of an endpoint, in the one form the client uses."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import shown_address

_EXAMPLE = "http://127.0.0.1:8000/v1"


Role = Literal["model", "judge"]


def normalize_api_base(url: str, role: Role = "model") -> str:
    """Give the base below which `/chat/completions` and `/models` lie.

    `/chat/completions` and slashes at the end are taken off; a URL without any path
    gets `/v1`, every other path is kept. Raises `VlmEvalError` for what is not an
    http(s) URL, and for one that carries a user, a query or a fragment: such are
    often secrets, so that they are not repeated in the text. `role` is whose it is.
    """
    given = url.strip()
    shown = shown_address(given)
    if not re.match(r"https?://", given, re.IGNORECASE):
        if "://" not in given:
            raise VlmEvalError(
                f"The API base {shown!r} has no scheme. Write it with http:// "
                f"or https:// in front, such as {_EXAMPLE}."
            )
        raise VlmEvalError(
            f"The API base {shown!r} is not an http or https URL. Give one "
            f"such as {_EXAMPLE}."
        )
    try:
        parts = urlsplit(given)
        netloc = _netloc(parts.hostname, parts.port)
    except ValueError:
        netloc = ""
    if not netloc:
        raise VlmEvalError(
            f"The API base {shown!r} has no valid host and port. Give a URL "
            f"such as {_EXAMPLE}."
        )
    prefix = "judge-" if role == "judge" else ""
    if "@" in parts.netloc or parts.fragment:
        raise VlmEvalError(
            f"The API base for {netloc} carries a user, a query or a fragment, which "
            f"are not accepted. Give a URL such as {_EXAMPLE}, and the key by "
            f"VLM_{prefix.upper().replace('-', '_')}API_KEY or "
            f"--vlm-{prefix}api-key-file."
        )
    if parts.query:
        raise VlmEvalError(
            f"The API base for {netloc} carries a query. Give the URL without the ? "
            f"and what follows it, and that by --vlm-{prefix}api-query, such as "
            f"--vlm-{prefix}api-query=api-version=2024-10-21: what it holds is never "
            "shown."
        )
    path = re.sub(r"/*(/chat/completions)?/*$", "", parts.path)
    return f"{parts.scheme}://{netloc}{path or '/v1'}"


def origin(url: str) -> str:
    """Return scheme, host and port of a URL; ValueError for one without them."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    standard = {"http": 80, "https": 443}
    if scheme not in standard or not parts.hostname:
        raise ValueError
    port = parts.port
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{host}" + (
        "" if port in (None, standard[scheme]) else f":{port}"
    )


def _netloc(host: str | None, port: int | None) -> str:
    """Give `host:port` as it stands in a URL, "" for a host that cannot be one."""
    if not host or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        return ""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def is_loopback(api_base: str) -> bool:
    """Whether a base points at this machine, where no proxy can reach for us."""
    host = urlsplit(api_base).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
