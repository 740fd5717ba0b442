"""Keeps the queries of URLs out of what libraries log, however verbose they are.

httpx logs the URL of each request, openai that of each response.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

# The loggers of what sends a request; a filter does not count for those below it.
_LOGGERS = ("httpx2", "httpx", "openai", "openai._base_client", "aiohttp.client")


class _Hiding(logging.Filter):
    """Puts *** in the place of each text that is secret."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the secrets in it."""
        text = record.getMessage()
        if any(secret in text for secret in self.secrets):
            for secret in sorted(self.secrets, key=len, reverse=True):
                text = text.replace(secret, "***")
            record.msg, record.args = text, ()
        return True


_HIDING = _Hiding()


def hide_in_logs(values: Iterable[str]) -> None:
    """Let no log of this process show these texts, nor their forms in a URL."""
    forms = {
        form for value in values for form in (value, quote(value), quote_plus(value))
    }
    _HIDING.secrets |= forms - {""}
    if _HIDING.secrets:
        for name in _LOGGERS:
            # A filter is added once, however often it is given.
            logging.getLogger(name).addFilter(_HIDING)
