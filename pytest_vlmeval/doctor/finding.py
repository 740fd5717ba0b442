"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "trouble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was looked at: how it is, and what to do about it.

    A `note` is no trouble, but worth to know; `remedy` is "" where nothing is to do.
    """

    about: str
    state: State
    text: str
    remedy: str = ""


def from_error(about: str, error: BaseException) -> Finding:
    """Make a finding of an error, whose text says what to do."""
    return Finding(about=about, state="trouble", text=str(error))
