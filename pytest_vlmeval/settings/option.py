"""What an option is, how its text is parsed, and which options need others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError

Identity = Literal["always", "given"]


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name, its parser, what the parser accepts, its help.

    `field` is what has its value in `Settings`, as `limit` or `gates.min_answered`; ""
    where that takes more than the value. `identity` says whether it tells runs apart:
    always, or where it is given. What is given for a `secret` one is in no message.
    `several` may be given several times, or as a list.
    """

    name: str
    parse: Callable[[str], Any]
    accepts: str
    help: str
    _: KW_ONLY
    default: str | None = None
    metavar: str | None = None
    secret: bool = False
    several: bool = False
    field: str = ""
    identity: Identity | None = None

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


def fields_of(
    options: Iterable[Option], values: Mapping[str, Any], group: str = ""
) -> dict[str, Any]:
    """Return the fields of a group of the settings, or of `Settings` itself, by name.

    What is not given in a group is left out, so that the group's own default counts.
    """
    found = {}
    for option in options:
        place, _, name = option.field.rpartition(".")
        value = values[option.name]
        if name and place == group and (value is not None or not group):
            found[name] = value
    return found


YES_NO = "1, true, yes, on, 0, false, no or off"
# Stands, among a test's datasets, for what --vlm-data names and no other test has.
OTHERS = "*"
NOT_IN_NAMES = (
    "brackets, slashes, '::', control characters and blanks at its beginning or end"
)
# A name that ends so is a file's, whatever it then turns out to hold.
TABLES = set(".tsv .csv .txt .xlsx .xls .json .jsonl .parquet .gz .zip".split())


def parse_whole(minimum: int) -> Callable[[str], int]:
    """Return the parser of whole numbers from `minimum` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise ValueError
        return value

    return parse


def parse_concurrency(text: str) -> int | None:
    """Read a whole number from 1 on, or auto, which is None."""
    return None if text == "auto" else parse_whole(1)(text)


def parse_number(
    minimum: float,
    *,
    above: bool = False,
    below: float = math.inf,
    maximum: float = math.inf,
) -> Callable[[str], float]:
    """Return the parser of numbers from `minimum`, or `above` it, to `maximum`.

    They are finite, and `below` another number where there is one.
    """

    def parse(text: str) -> float:
        value = float(text)
        if not minimum <= value <= maximum or not value < below:
            raise ValueError
        if above and value == minimum:
            raise ValueError
        return value

    return parse


def parse_one_of(*choices: str) -> Callable[[str], str]:
    """Return the parser that takes one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def parse_file_as(*suffixes: str) -> Callable[[str], Path]:
    """Return the parser of a file's path that ends in one of these."""

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() not in suffixes:
            raise ValueError
        return Path(text)

    return parse


def parse_flag(text: str) -> bool:
    """Read yes or no."""
    values = {"1": True, "true": True, "yes": True, "on": True}
    values |= {"0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError
    return values[text.lower()]


def parse_unless_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the parser that takes the word none too, for what is not to be sent."""
    return lambda text: None if text.lower() == "none" else parse(text)


def parse_or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the parser that keeps the word none, as None means not given."""
    return lambda text: "none" if text.lower() == "none" else parse(text)


def parse_names(text: str) -> tuple[str, ...]:
    """Read names, separated by commas or blanks."""
    return tuple(name for name in text.replace(",", " ").split() if name)


def parse_datasets(text: str) -> tuple[str, ...]:
    """Read names and paths, separated by commas or blanks, quoted as in a shell."""
    import shlex

    words = shlex.shlex(text, posix=True)
    words.whitespace += ","
    words.whitespace_split = True
    words.commenters = ""
    return tuple(name for name in words if name)


def list_datasets(names: Iterable[str]) -> str:
    """Write names and paths so that `parse_datasets` reads the same."""
    return ",".join(
        # A comma is nothing to a shell, which `shlex.quote` thinks of.
        "'" + name.replace("'", "'\"'\"'") + "'"
        if re.search(r"[,\s'\"\\]", name)
        else name
        for name in names
    )


def parse_command(text: str) -> tuple[str, ...]:
    """Read the words of a command that gets a port where it says {port}."""
    if "{port}" not in text:
        raise ValueError
    import shlex

    return tuple(shlex.split(text))


def parse_urls(text: str) -> tuple[str, ...]:
    """Read URLs, separated by commas or blanks; an empty text is a bad one."""
    return parse_names(text) or (text,)


def is_table(name: str) -> bool:
    """Return whether a dataset's name is the path of a file of the user's own."""
    return "/" in name or "\\" in name or Path(name).suffix.lower() in TABLES


def dataset_name(name: str) -> str:
    """Return the name of a dataset that may be named by its file."""
    if not is_table(name):
        return name
    path = Path(name)
    return Path(path.stem).stem if path.name.lower().endswith(".tsv.gz") else path.stem


def can_be_name(name: str) -> bool:
    """Return whether a dataset may have this name, which is part of test ids."""
    return (
        name.strip() == name != ""
        and "::" not in name
        and all(char.isprintable() or char == "\u3000" for char in name)
        and not set("[]/\\") & set(name)
    )


def parse_store(text: str) -> str:
    """Read the URL of a PostgreSQL database."""
    scheme, mark, rest = text.partition("://")
    if not mark or not rest or scheme not in ("postgresql", "postgres"):
        raise ValueError
    return f"postgresql://{rest}"


class ApiKey(str):
    """A key, which no traceback shows that prints the values of variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Stand for the key."""
        return "'***'"


def shown_address(url: str) -> str:
    """Return a server's URL without what may be secret: a user, a query."""
    return re.sub(r"[^/]*@|[?#].*", "", url)


def hide_password(text: str) -> str:
    """Return a text with a URL in it without what may be a password.

    In the URL of a website a user alone, and a query, may be one too.
    """
    text = re.sub(r"(://[^/?#\s]*?):\S*@", r"\1:***@", text)
    text = re.sub(r"(?i)(https?://)[^/?#\s,:@]+@", r"\1***@", text)
    text = re.sub(r"(?i)(https?://[^\s,?#]*)[?#][^\s,]*", r"\1?***", text)
    return re.sub(r"(?i)\b(password|passwd)=[^&\s]*", r"\1=***", text)


def parse_mirror(text: str) -> str:
    """Read where files are taken from: a URL, or a folder that exists."""
    if text.lower().startswith(("http://", "https://")):
        # What is no secret may be shown, and is, in messages and beside files.
        if "@" in urlsplit(text).netloc:
            raise ValueError
        return text
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ValueError
    return str(folder.absolute())


Backend = Literal["auto", "endpoint", "demo", "local"]


def choose_backend(backend: Backend, model: str | None) -> Backend:
    """Return where the model runs."""
    if backend == "auto":
        return "demo" if model == "demo" else "endpoint"
    return backend


def check_together(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` for options that exclude each other."""
    check_frames(values)
    check_sent(values, backend)
    check_repeat(values, backend)
    check_stop_early(values)


def check_frames(values: Mapping[str, Any]) -> None:
    """Raise `VlmEvalError` where a video would be shown in two ways."""
    given = [name for name in ("nframe", "fps", "video-url") if values[name]]
    if len(given) > 1:
        options = " and ".join(f"--vlm-{name}" for name in given)
        raise VlmEvalError(
            f"{options} exclude each other: a video is shown as N frames, as F frames "
            "per second or as its file. Give one of them."
        )


def check_sent(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` where no server has a value of its own."""
    if backend == "endpoint":
        return
    for name in ("max-tokens", "temperature"):
        if values[name] is None:
            raise VlmEvalError(
                f"--vlm-{name}=none leaves it to the model's server, and "
                f"--vlm-backend={backend} has none. Give a number, or leave it out."
            )
    for name in ("max-tokens-name", "api-query", "api-header-file"):
        if values[name] is not None:
            raise VlmEvalError(
                f"--vlm-{name} is about requests to a server, and "
                f"--vlm-backend={backend} has none. Leave it out."
            )


def check_repeat(values: Mapping[str, Any], backend: Backend) -> None:
    """Raise `VlmEvalError` where repeats would all be alike."""
    if values["repeat"] == 1:
        return
    given = f"--vlm-repeat={values['repeat']} asks each sample {values['repeat']} times"
    if backend == "demo":
        raise VlmEvalError(
            f"{given}, but the demo model answers a prompt always alike. Leave "
            "--vlm-repeat out."
        )
    if values["temperature"] == 0:
        raise VlmEvalError(
            f"{given}, but at --vlm-temperature=0 a model answers alike each time. "
            "Give a temperature above 0, for example --vlm-temperature=0.7, or leave "
            "--vlm-repeat out."
        )


def check_stop_early(values: Mapping[str, Any]) -> None:
    """Raise `VlmEvalError` for what excludes that gates are decided one by one."""
    if not values["stop-early"]:
        return
    mode = values["mode"]
    if mode in ("infer", "score"):
        raise VlmEvalError(
            f"--vlm-stop-early and --vlm-mode={mode} exclude each other: samples are "
            "scored while others are asked. Give --vlm-mode=all, or leave "
            "--vlm-stop-early out."
        )
    if values["fdr"] is not None:
        raise VlmEvalError(
            "--vlm-stop-early and --vlm-fdr exclude each other: the one decides each "
            "gate by itself, the other all together. Leave one of them out."
        )
    if values["repeat"] > 1:
        raise VlmEvalError(
            f"--vlm-stop-early and --vlm-repeat={values['repeat']} exclude each other: "
            "a gate is decided early only by samples that are asked once. Leave one "
            "of them out."
        )
