"""What an option of the plugin is, whatever it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: its name, its parser, what the parser accepts, its help.

    What is given for a `secret` one is in no message.
    """

    name: str
    default: str | None
    parse: Callable[[str], Any]
    accepts: str
    help: str
    metavar: str | None = None
    secret: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether the command line takes it without a value."""
        return self.metavar is None

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return "--vlm-" + self.name

    def show(self, text: str) -> str:
        """Return what was given as a message may show it."""
        return "***" if self.secret else text

    @property
    def ini(self) -> str:
        """The name in pytest's ini file."""
        return "vlm_" + self.name.replace("-", "_")

    @property
    def env(self) -> str:
        """The name in the environment."""
        return self.ini.upper()


def make_option(
    name: str,
    parse: Callable[[str], Any],
    accepts: str,
    help: str,
    *,
    default: str | None = None,
    metavar: str | None = None,
    secret: bool = False,
) -> Option:
    """Write an option in the order in which one reads about it."""
    return Option(
        name=name,
        default=default,
        parse=parse,
        accepts=accepts,
        help=help,
        metavar=metavar,
        secret=secret,
    )
