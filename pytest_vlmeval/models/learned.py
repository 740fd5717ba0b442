"""What a session finds out of its endpoints while it asks them, told once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path


class Learned:
    """The findings of one process, and by files in `folder` those of the others.

    Without a `folder` they are shared within the process alone. `announce` is told what
    users should know, each line once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._announce = announce
        self._announced: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}

    def announce(self, line: str) -> None:
        """Tell the user, once."""
        if line not in self._announced:
            self._announced.add(line)
            self._announce(line)

    def look(self, api_base: str, model: str) -> None:
        """Take in what other processes of the session have found out."""
        if self._folder is None or (api_base, model) in self._names:
            return
        try:
            text = self._file(self._folder, api_base, model).read_text("utf-8")
            self._names[api_base, model] = str(json.loads(text)["max_tokens_name"])
        except (OSError, ValueError, KeyError, TypeError):
            return

    def token_limit_name(self, api_base: str, model: str) -> str | None:
        """Return the name that a server asked for, None if it asked for none."""
        return self._names.get((api_base, model))

    def keep_token_limit_name(self, api_base: str, model: str, name: str) -> None:
        """Remember the name of the token limit for all further requests."""
        self._names[api_base, model] = name
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(self._folder, api_base, model)
        writing = file.with_suffix(f".{os.getpid()}")
        writing.write_text(json.dumps({"max_tokens_name": name}), encoding="utf-8")
        writing.replace(file)

    def _file(self, folder: Path, api_base: str, model: str) -> Path:
        digest = hashlib.sha256(json.dumps([api_base, model]).encode()).hexdigest()
        return folder / f"learned-{digest[:16]}.json"
