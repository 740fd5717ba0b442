"""What may be wrong with an address at which no API answers: its scheme, its path."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

TLS_LIMIT_S = 3.0
# What OpenSSL says of an answer that is none of TLS; which of them depends on its
# version, and on what the server says.
_NO_TLS = {
    *("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"),
    *("UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "HTTPS_PROXY_REQUEST"),
}


def is_without_tls(error: BaseException) -> bool:
    """Return whether a handshake failed because the server does not speak TLS."""
    # aiohttp's own errors of TLS have no reason.
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", "") in _NO_TLS


def swap_scheme(api_base: str) -> str:
    """Return the same address with https for http, or http for https."""
    scheme, rest = api_base.split(":", 1)
    return f"{'http' if scheme == 'https' else 'https'}:{rest}"


async def speaks_tls(api_base: str) -> bool:
    """Return whether a TLS handshake succeeds where this http address points.

    Nothing is sent but the handshake, and no certificate is checked.
    """
    parts = urlsplit(api_base)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(TLS_LIMIT_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 80, ssl=context
            )
        writer.transport.abort()
        return True
    return False


def nearby_bases(api_base: str) -> list[str]:
    """Return where on the same server an API may be that is not at this address."""
    parts = urlsplit(api_base)
    root = f"{parts.scheme}://{parts.netloc}"
    up_to_version = re.match(r".*?/v\d+(?=/)", parts.path)
    found = [
        f"{root}{up_to_version[0]}" if up_to_version else "",
        f"{root}/v1",
        f"{api_base}/v1",
    ]
    return [each for each in dict.fromkeys(found) if each not in ("", api_base)]


def is_public(api_base: str) -> bool:
    """Return whether an address is on the internet, as far as it tells."""
    host = urlsplit(api_base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name, _, domain = host.rpartition(".")
        return bool(name) and domain not in ("local", "localhost", "internal", "lan")
