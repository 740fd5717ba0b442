"""What an option is, how its text is parsed, and where one was given."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

Backend = Literal["auto", "endpoint", "demo", "local"]
Identity = Literal["always", "given"]
Place = Literal["command", "task", "ini", "environment"]
# The first wins over the next.
PLACES: tuple[Place, ...] = ("command", "task", "ini", "environment")


@dataclass(frozen=True, slots=True)
class Parser:
    """Reads the text of an option; ValueError for a text that is not accepted.

    `accepts` is what messages and the documentation say it takes, `metavar` stands for
    the value in the help; None is a flag, which the command line takes without a value.
    An empty text, as of a shell's variable that is not set, is accepted only if it is
    `blank`.
    """

    read: Callable[[str], Any]
    accepts: str
    metavar: str | None = None
    blank: bool = False

    def __call__(self, text: str) -> Any:
        """Return the value that a text stands for."""
        if self.metavar is not None and not (self.blank or text.strip()):
            raise ValueError(text)
        return self.read(text)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting that can be given: its name, its parser, its help.

    Without `default` its value is `absent` if it is not given. What is given for a
    `secret` one is in no message. `several` may be given several times, or as a list.
    `identity` says whether it tells runs apart: always, or where it is given.
    `backends` are those it is for, () for all. `field` is what has its value in
    `Settings`, as `limit` or `gates.min_answered`; "" where that takes more.
    """

    name: str
    parse: Parser
    help: str
    _: KW_ONLY
    default: str | None = None
    absent: Any = None
    metavar: str | None = None
    secret: bool = False
    several: bool = False
    identity: Identity | None = None
    backends: tuple[Backend, ...] = ()
    field: str = ""

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return "--vlm-" + self.name

    @property
    def placeholder(self) -> str | None:
        """What stands for its value in the help; None is a flag."""
        return self.metavar or self.parse.metavar

    @property
    def unset(self) -> Any:
        """Its value where it is not given."""
        return self.absent if self.default is None else self.parse(self.default)

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


def setting(name: str, parse: Parser, text: str, **more: Any) -> Any:
    """Return a field of the settings that is the value of an option."""
    row = Option(name, parse, text, **more)
    return field(default_factory=lambda: row.unset, metadata={"option": row})


def made_of(*options: Option) -> Any:
    """Return a field of the settings that takes more than the values of options."""
    return field(metadata={"made_of": options})


def group(settings: type) -> Any:
    """Return a field of the settings whose own fields are options."""
    return field(metadata={"group": settings})


def options_of(settings: type, place: str = "") -> Iterator[Option]:
    """Yield the options of a class of settings, in the order of its fields."""
    for each in fields(settings):
        if "option" in each.metadata:
            yield replace(each.metadata["option"], field=f"{place}{each.name}")
        yield from each.metadata.get("made_of", ())
        if "group" in each.metadata:
            yield from options_of(each.metadata["group"], f"{each.name}.")


def fields_of(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a class of settings that are values of options."""
    return {
        each.name: values[each.metadata["option"].name]
        for each in fields(settings)
        if "option" in each.metadata
    }


class Given(NamedTuple):
    """The text of an option, the place it was given in, and how it stands there.

    `field` is that of a task file. `assumed`: ms-vlmeval takes it where the task file
    has nothing. `mistyped`: a TOML file has it as a value of a type that the option
    does not take.
    """

    text: str
    place: Place
    shown: str
    field: str = ""
    assumed: bool = False
    mistyped: bool = False


# Stands, among a test's datasets, for what --vlm-data names and no other test has.
OTHERS = "*"
NOT_IN_NAMES = (
    "brackets, slashes, '::', control characters and blanks at its beginning or end"
)
# A name that ends so is a file's, whatever it then turns out to hold.
TABLES = set(".tsv .csv .txt .xlsx .xls .json .jsonl .parquet .gz .zip".split())
# What begins the name of a dataset in a repository of a hub.
HUBS = {"hf:": "huggingface", "ms:": "modelscope"}

_YES_NO = {"1": True, "true": True, "yes": True, "on": True}
_YES_NO |= {"0": False, "false": False, "no": False, "off": False}


def takes(
    accepts: str, metavar: str | None = None, *, blank: bool = False
) -> Callable[[Callable[[str], Any]], Parser]:
    """Return what makes a parser of a function."""
    return lambda read: Parser(read, accepts, metavar, blank)


@takes("1, true, yes, on, 0, false, no or off")
def parse_flag(text: str) -> bool:
    """Read yes or no."""
    if text.lower() not in _YES_NO:
        raise ValueError
    return _YES_NO[text.lower()]


FILE = Parser(Path, "a readable file", "FILE")
FOLDER = Parser(Path, "a folder", "DIR")
PYTHON = Parser(Path, "a Python interpreter", "PATH")
RUN = Parser(str, "a run's id, the beginning of it, or a model's name", "RUN")


def parse_whole(minimum: int, unit: str = "") -> Parser:
    """Return the parser of whole numbers from `minimum` on."""

    def read(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise ValueError
        return value

    accepts = f"a whole number of at least {minimum}"
    return Parser(read, f"{accepts} ({unit})" if unit else accepts, "N")


def parse_number(
    accepts: str,
    minimum: float,
    *,
    above: bool = False,
    below: float = math.inf,
    maximum: float = math.inf,
    metavar: str | None = None,
) -> Parser:
    """Return the parser of numbers from `minimum`, or `above` it, to `maximum`.

    They are finite, and `below` another number where there is one.
    """

    def read(text: str) -> float:
        value = float(text)
        if not minimum <= value <= maximum or not value < below:
            raise ValueError
        if above and value == minimum:
            raise ValueError
        return value

    return Parser(read, accepts, metavar)


SECONDS = parse_number("a number above 0 (seconds)", 0, above=True, metavar="SECONDS")
PERCENT = parse_number(
    "a number from 0 to 100 (percent)", 0, maximum=100, metavar="PERCENT"
)


def parse_one_of(*choices: str) -> Parser:
    """Return the parser that takes one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    *others, last = choices
    return Parser(read, f"{', '.join(others)} or {last}")


def or_word(word: str, value: object, parse: Parser) -> Parser:
    """Return the parser that takes a word too, whose value this is."""
    return Parser(
        lambda text: value if text.lower() == word else parse(text),
        f"{parse.accepts}, or {word}",
        parse.metavar,
    )


def parse_names(text: str) -> tuple[str, ...]:
    """Read names, separated by commas or blanks."""
    return tuple(name for name in text.replace(",", " ").split() if name)


def split_words(text: str) -> Iterator[str]:
    """Return words, separated by commas or blanks, quoted as in a shell."""
    import shlex

    words = shlex.shlex(text, posix=True)
    # A comma in quotes is part of a word.
    words.whitespace += ","
    words.whitespace_split, words.commenters = True, ""
    return words


@takes(
    "dataset names, paths of tables and folders, or hf:OWNER/NAME, separated by "
    "commas, and in quotes where a comma or blank is part of them",
    "NAMES",
)
def parse_datasets(text: str) -> tuple[str, ...]:
    """Read names and paths, separated by commas or blanks, quoted as in a shell."""
    return tuple(name for name in split_words(text) if name)


@takes(
    "what columns are for and their names, as question=prompt,image=img; of index, "
    "messages, question, answer, options, image, image_path, category, split, hint, "
    "g_index, answer_from_0, answer_from_1 and A, B, ... for options",
    "COLUMNS",
)
def parse_columns(text: str) -> dict[str, str]:
    """Read which column is for what; one with an empty name is left out."""
    found: dict[str, str] = {}
    for word in split_words(text):
        target, mark, name = word.partition("=")
        if not mark or target in found:
            raise ValueError
        found[target] = name
    if not found or not are_columns(found):
        raise ValueError
    return found


def are_columns(given: Mapping[str, str]) -> bool:
    """Return whether a mapping says what columns of a table are for, each for one."""
    # Records cost every session milliseconds; only some have columns to name.
    from pytest_vlmeval.records import COLUMNS, COUNTED, LETTERS

    named = [name for name in given.values() if name]
    return (
        all(isinstance(name, str) for name in given.values())
        and set(given) <= {*COLUMNS, *COUNTED, *LETTERS}
        and len(set(named)) == len(named)
        and len({"answer", *COUNTED} & set(given)) <= 1
    )


def list_datasets(names: Iterable[str]) -> str:
    """Write names and paths so that `parse_datasets` reads the same."""
    return ",".join(
        # A comma is nothing to a shell, which `shlex.quote` thinks of.
        "'" + name.replace("'", "'\"'\"'") + "'"
        if re.search(r"[,\s'\"\\]", name)
        else name
        for name in names
    )


@takes(
    "a command with {port} in it, such as 'vllm serve MODEL --port {port}'", "COMMAND"
)
def parse_command(text: str) -> tuple[str, ...]:
    """Read the words of a command that gets a port where it says {port}."""
    if "{port}" not in text:
        raise ValueError
    import shlex

    return tuple(shlex.split(text))


@takes("http or https URLs, separated by commas", "URL")
def parse_urls(text: str) -> tuple[str, ...]:
    """Read URLs, separated by commas or blanks."""
    if not (found := parse_names(text)):
        raise ValueError
    return found


def is_table(name: str) -> bool:
    """Return whether a dataset's name is the place of a table of the user's own.

    That is the path of a file or folder, or a repository of a hub.
    """
    return (
        name.startswith(tuple(HUBS))
        or "/" in name
        or "\\" in name
        or Path(name).suffix.lower() in TABLES
    )


def is_repository(name: str) -> bool:
    """Return whether a dataset's name is a repository of a hub: hf:OWNER/NAME."""
    return name.startswith(tuple(HUBS))


class Repository(NamedTuple):
    """A repository of a hub, as hf:OWNER/NAME@REVISION:SPLIT names it.

    `revision` and `split` are "" where the hub's own default is meant.
    """

    hub: str
    name: str
    revision: str = ""
    split: str = ""


def read_repository(text: str) -> Repository:
    """Read the name of a repository; ValueError for what is none."""
    hub, _, rest = text.partition(":")
    found = re.fullmatch(
        r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w./-]+))?", rest, re.ASCII
    )
    if found is None:
        raise ValueError(text)
    return Repository(HUBS[f"{hub}:"], found[1], found[2] or "", found[3] or "")


def table_place(name: str, folder: Path) -> str:
    """Return a dataset's name, one that is a path counted from a folder."""
    if not is_table(name) or is_repository(name):
        return name
    return str(folder / Path(name).expanduser())


def dataset_name(name: str) -> str:
    """Return the name of a dataset that may be named by its table's place."""
    if not is_table(name):
        return name
    if is_repository(name):
        with suppress(ValueError):
            found = read_repository(name)
            parts = [found.name.rpartition("/")[2], *found.split.split("/")]
            return "-".join(filter(None, parts))
    file = Path(name).name
    plain = file[:-3] if file.lower().endswith(".gz") else file
    if Path(plain).suffix.lower() in TABLES:
        plain = Path(plain).stem
    return plain or file


def can_be_name(name: str) -> bool:
    """Return whether a dataset may have this name, which is part of test ids."""
    return (
        name.strip() == name != ""
        and "::" not in name
        and all(char.isprintable() or char == "\u3000" for char in name)
        and not set("[]/\\") & set(name)
    )


@takes("postgresql://USER@HOST:PORT/DATABASE", "URL")
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


_KEY = r"(?:\w+[-_.])*(?:key|secret|token|password|passwd|authorization)(?:[-_.]\w+)*"
_KEY_NAME = re.compile(rf"-*{_KEY}", re.IGNORECASE)
# A key in JSON or YAML, by its name: up to the end of its text.
_KEY_INSIDE = re.compile(
    rf"""(\b{_KEY}["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}}]+)""",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\b(?:hf_[\w-]{8,}|sk-[\w-]{16,})")


def hide_keys(arguments: Sequence[str]) -> list[str]:
    """Return a command line without what is, or may be, a key or a password.

    Known are the names of options, of ini values (-o) and of members in JSON, the
    beginnings of some keys, and passwords in URLs.
    """
    found = []
    is_key = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if is_key and not argument.startswith("-"):
            argument = "***"
        elif equals and _KEY_NAME.fullmatch(name):
            argument = f"{name}=***"
        is_key = not equals and name.startswith("-") and bool(_KEY_NAME.fullmatch(name))
        argument = _KEY_INSIDE.sub(r"\1***", argument)
        found.append(hide_password(_TOKEN.sub("***", argument)))
    return found


@takes("an http or https URL without a password, or a folder that exists", "URL|DIR")
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
