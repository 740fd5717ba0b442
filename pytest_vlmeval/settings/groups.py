"""The settings in groups that belong together; each field says its option.

Header values and the query may be secret: no message, log or `repr` shows them.

ms-vlmeval itself takes the judge's name from LOCAL_LLM, else a paid model of its own
choice, its address from OPENAI_API_BASE, else api.openai.com, and its key from
OPENAI_API_KEY. Here a judge is asked only where one is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from pytest_vlmeval.errors import SHORTEST_SECRET, VlmEvalError
from pytest_vlmeval.settings.option import (
    PERCENT,
    PYTHON,
    RUN,
    SECONDS,
    ApiKey,
    Parser,
    parse_command,
    parse_flag,
    parse_number,
    parse_one_of,
    parse_whole,
    setting,
    shown_address,
    split_words,
    takes,
)

if TYPE_CHECKING:
    from pytest_vlmeval.records import Hub, Inconclusive, JudgeQuestion

# Members that a request has by itself, and may go without.
OPTIONAL = ("model", "max_tokens", "temperature")
# What requests are made of: options of their own, or the prompt itself.
RESERVED = (*OPTIONAL, "messages", "stream", "n")
# What stands for a member that is not sent.
NONE = "none"
SECRET_NAME = re.compile(r"(^|[_-])(api_?key|secret|password|authorization)$", re.I)
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_OURS = {
    *("content-type", "content-length", "content-encoding", "transfer-encoding"),
    *("host", "connection", "accept-encoding"),
}


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

    @property
    def authorizes(self) -> bool:
        """Whether a header is where a key would be sent."""
        return any(name.lower() == "authorization" for name, _ in self.headers)

    def check_key(self, api_key: str | None, prefix: str = "") -> None:
        """Raise `VlmEvalError` where a key and a header would be sent in one place."""
        if api_key and self.authorizes:
            raise VlmEvalError(
                f"--vlm-{prefix}api-header-file gives Authorization, and so does the "
                f"API key (VLM_{prefix.upper().replace('-', '_')}API_KEY, "
                f"--vlm-{prefix}api-key-file). Leave one of them out."
            )


PLAIN = RequestForm()


@takes("the name of a member, such as max_completion_tokens", "NAME")
def parse_member(text: str) -> str:
    """Read the name of a member of the body; ValueError for another text."""
    if not _MEMBER.fullmatch(text) or text in set(RESERVED) - {"max_tokens"}:
        raise ValueError
    return text


@takes("NAME=VALUE pairs, joined by &", "QUERY", blank=True)
def parse_query(text: str) -> tuple[tuple[str, str], ...]:
    """Read `NAME=VALUE` pairs, joined by `&`; ValueError for another text."""
    pairs = parse_qsl(text.lstrip("?"), keep_blank_values=True, strict_parsing=True)
    if not all(name for name, _ in pairs):
        raise ValueError
    return tuple((name, ApiKey(value)) for name, value in pairs)


@takes(
    "the text of a JSON object without keys or passwords, without messages, stream and "
    "n, and with model, max_tokens and temperature only as null, which leaves them out",
    "JSON",
)
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
        value = list(value.values())
    inner = map(find_secret, value) if isinstance(value, list) else ()
    return next((found for found in inner if found is not None), None)


def split_body(text: str) -> tuple[str, frozenset[str]]:
    """Return the JSON of the members that are sent, and those that are left out."""
    body: dict[str, Any] = json.loads(text or "{}")
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


# How images are sent: the dataset's own bytes, or what ms-vlmeval makes of them.
Images = Literal["original", "as-ms-vlmeval"]
# What opens and what closes the thoughts of a model.
TagPair = tuple[str, str]
NO_PAIRS = "Tags come in pairs"
_NAME = re.compile(r"[\w:.-]+")


@lru_cache(maxsize=8)
def pair_tags(text: str) -> tuple[TagPair, ...]:
    """Read tags around thoughts, separated by commas or blanks; ValueError for others.

    A name stands for `<name>` and `</name>`; other tags come in pairs.
    """
    words = iter(text.replace(",", " ").split())
    pairs = []
    for word in words:
        if _NAME.fullmatch(word):
            pairs.append((f"<{word}>", f"</{word}>"))
            continue
        closing = next(words, "")
        if not closing or closing == word or _NAME.fullmatch(closing):
            raise ValueError(NO_PAIRS)
        pairs.append((word, closing))
    if not pairs:
        raise ValueError(NO_PAIRS)
    return tuple(pairs)


@takes(
    "names of tags, or pairs of them, separated by commas or blanks, or none", "TAGS"
)
def parse_think_tags(text: str) -> str:
    """Read tags around thoughts, and write them one way; "none" looks for none."""
    if text.strip() == NONE:
        return NONE
    return " ".join(tag for pair in pair_tags(text) for tag in pair)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """What is done to each prompt; None and "" leave it as the dataset has it.

    `images` is how images are sent. `image_size` bounds the longest side of an image,
    in pixels, `max_pixels` its area; larger ones are made smaller, in their
    proportions. `image_detail` is OpenAI's hint to the server. `extra_body` is the JSON
    of an object that is added to each request. `think_tags` are around a model's
    thoughts in its answers, beside those known; with "none" thoughts are a part of the
    answer.
    """

    images: Images = setting(
        "images",
        parse_one_of("original", "as-ms-vlmeval"),
        "how images are sent: the dataset's own bytes, or as JPEG with the bytes that "
        "ms-vlmeval's API models send",
        default="original",
        metavar="HOW",
        identity="given",
        backends=("endpoint",),
    )
    image_size: int | None = setting(
        "image-size",
        parse_whole(1, "pixels"),
        "longest side of an image, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
        identity="given",
        backends=("endpoint",),
    )
    max_pixels: int | None = setting(
        "max-pixels",
        parse_whole(1, "pixels"),
        "largest area of an image, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
        identity="given",
        backends=("endpoint",),
    )
    image_detail: str | None = setting(
        "image-detail",
        parse_one_of("low", "high", "auto"),
        "detail of each image in requests, which decides how finely some servers read "
        "it (default: not sent)",
        metavar="DETAIL",
        identity="given",
        backends=("endpoint",),
    )
    system_prompt: str | None = setting(
        "system-prompt",
        Parser(str, "a text", "TEXT", blank=True),
        "system message before each prompt (default: none is added)",
        identity="given",
        backends=("endpoint", "local"),
    )
    extra_body: str = setting(
        "extra-body",
        parse_body,
        "further members of each request's body, such as '{\"top_k\": 1}'; one that is "
        "null is left out: '{\"temperature\": null}'",
        absent="",
        secret=True,
        identity="given",
        backends=("endpoint",),
    )
    think_tags: str = setting(
        "think-tags",
        parse_think_tags,
        "tags that enclose the model's reasoning, beside those that are known "
        "(<think>, [THINK], gpt-oss' channels and others): mull stands for <mull> and "
        "</mull>; none leaves thoughts in the answer, where they are scored as in "
        "ms-vlmeval",
        absent="",
        identity="given",
        backends=("endpoint", "local"),
    )

    @property
    def tag_pairs(self) -> tuple[TagPair, ...] | None:
        """The tags in pairs; None if no tags are looked for."""
        if self.think_tags == NONE:
            return None
        return pair_tags(self.think_tags) if self.think_tags else ()

    @property
    def leaves_images(self) -> bool:
        """Whether images go as they are, so that a body is written in no time."""
        how = (self.images, self.image_size, self.max_pixels)
        return how == ("original", None, None)


AS_IT_IS = Prompting()

GateSamples = Literal["none", "regressed"]
# Which baselines a session writes, as syrupy's options say.
Updating = Literal["none", "new", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSettings:
    """How runs are compared: `level` is a confidence, `margin` in points of 100.

    `compare_with` names another run of the store, None for none. `project` is the
    folder that keeps the baselines of benchmarks which an installed package brings.
    `updating` says which baselines are written instead of compared with.
    """

    level: float = setting(
        "level",
        parse_number("a confidence: a number from 0.5 to below 1", 0.5, below=1),
        "confidence of comparisons with a baseline or another run: a model that is no "
        "worse fails with a chance of at most 1 minus the level",
        default="0.95",
        metavar="LEVEL",
    )
    margin: float = setting(
        "margin",
        parse_number("a number from 0 to below 100 (points)", 0, below=100),
        "drop below the baseline that is tolerated, in points (hundredths of the "
        "samples)",
        default="0",
        metavar="POINTS",
    )
    allow_missing: bool = setting(
        "allow-missing-baseline",
        parse_flag,
        "a score without a baseline passes, even if the model has others",
        default="no",
    )
    require: bool = setting(
        "require-baseline",
        parse_flag,
        "a score without a baseline fails, even if the model has none at all",
        default="no",
    )
    gate_samples: GateSamples = setting(
        "gate-samples",
        parse_one_of("none", "regressed"),
        "wrong samples whose items fail, whatever --vlm-wrong says: none of them, or "
        "those that were right in the baseline",
        default="none",
        metavar="WHICH",
    )
    compare_with: str | None = setting(
        "compare-with",
        RUN,
        "another run of the store, compared with this one sample by sample at the end",
    )
    project: Path = Path()
    updating: Updating = "none"

    @property
    def alpha(self) -> float:
        """How often a comparison may find a drop where there is none."""
        return round(1 - self.level, 12)


Value = str | int | float | bool | None


@takes("key=value pairs, separated by blanks or commas", "KEY=VALUE", blank=True)
def parse_arguments(text: str) -> dict[str, Value]:
    """Read `key=value` pairs, separated by blanks or commas; ValueError for others.

    Values are Python's literals, and else texts.
    """
    import ast  # this module is loaded in sessions without any model

    found: dict[str, Value] = {}
    for word in split_words(text):
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError
        try:
            literal = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            literal = value
        found[name] = literal if isinstance(literal, Value) else value
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """Where the model's weights are and how it is loaded.

    `path` is a folder, or a name that the class itself resolves; None takes that of
    ms-vlmeval's own configuration, as "" does for the class. `arguments` go to the
    constructor. `python` has torch; None is the running one. `visible_devices` is
    CUDA_VISIBLE_DEVICES, None if unset. This process has the copy `replica` of
    `replicas`, counted from 0. `checksums` is the file that keeps those of weights,
    `hub_cache` the folder where Hugging Face's repositories lie.
    """

    path: str | None = setting(
        "model-path",
        Parser(str, "the folder of a checkpoint, or a name on a hub", "DIR"),
        "weights of a model that runs here (--vlm-backend=local)",
        identity="given",
        backends=("local",),
    )
    class_name: str = setting(
        "model-class",
        Parser(str, "the name of a class of ms-vlmeval's vlmeval.vlm", "CLASS"),
        "class that loads a model that runs here (default: that of ms-vlmeval's "
        "configuration)",
        absent="",
        identity="given",
        backends=("local",),
    )
    arguments: Mapping[str, Value] = setting(
        "model-args",
        parse_arguments,
        "arguments of the constructor of a model that runs here; may be repeated",
        absent={},
        several=True,
        identity="given",
        backends=("local",),
    )
    batch_size: int = setting(
        "batch-size",
        parse_whole(1, "prompts"),
        "prompts that a model that runs here answers together, if it can",
        default="8",
    )
    python: Path | None = setting(
        "local-python",
        PYTHON,
        "interpreter whose environment has torch and transformers, for "
        "--vlm-backend=local (default: the running one)",
    )
    visible_devices: str | None = None
    replica: int = 0
    replicas: int = 1
    checksums: Path | None = None
    hub_cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A Ray cluster; `address` is RAY_ADDRESS, None to start one on this machine.

    `replicas` is how many processes answer, None for as many as there is room for.
    """

    address: str | None
    replicas: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What decides whether a score passes.

    `thresholds` is a file, None for the one beside the benchmarks. `min_answered` of
    all samples, `min_judged` of those that a judge was asked about and at most
    `max_cut_off` of all samples are percent. `false_discoveries` is the share of
    false alarms among all alarms that is accepted; None where each gate counts by
    itself. With `stop_early` no more is asked of a dataset whose gates are decided.
    `step_summary` is the file to which a table of all gates is added.
    """

    thresholds: Path | None = setting(
        "thresholds",
        Parser(Path, "a TOML file", "FILE"),
        "file of the thresholds that scores have to reach (default: thresholds.toml "
        "beside the benchmarks)",
    )
    inconclusive: Inconclusive = setting(
        "inconclusive",
        parse_one_of("pass", "fail"),
        "whether a score that is too close to its threshold to tell passes (default: "
        "only under the rule confident-below)",
        absent="rule",
        metavar="HOW",
    )
    false_discoveries: float | None = setting(
        "fdr",
        parse_number("a number above 0 and below 1", 0, above=True, below=1),
        "accepted share of false alarms among all failed gates of the run, thresholds "
        "and baselines, by Benjamini-Hochberg; without it each gate is decided by "
        "itself",
        metavar="SHARE",
    )
    stop_early: bool = setting(
        "stop-early",
        parse_flag,
        "ask samples in random order (--vlm-seed) and stop asking a dataset as soon as "
        "it is certain enough whether it passes its threshold and its baseline",
        default="no",
    )
    min_answered: float = setting(
        "min-answered",
        PERCENT,
        "a score fails if fewer of its samples have a usable answer, in percent",
        default="100",
    )
    min_judged: float = setting(
        "min-judged",
        PERCENT,
        "a score fails if the judge decided a smaller share of what it was asked, in "
        "percent",
        default="99",
    )
    max_cut_off: float = setting(
        "max-cut-off",
        PERCENT,
        "a score fails if more of its answers were cut off at --vlm-max-tokens, in "
        "percent",
        default="1",
    )
    step_summary: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Commands, as words, that serve the model and the judge; () where none is given.

    `replicas` is how many servers the model has, `timeout_s` how long each may take
    until it can be asked. `visible_devices` is CUDA_VISIBLE_DEVICES of the user, None
    where it is unset.
    """

    model: tuple[str, ...] = setting(
        "serve",
        parse_command,
        "start this server for the run, if an answer is missing or stored ones are to "
        "be checked, and end it with the run: swift deploy, vllm serve, lmdeploy, "
        "sglang, transformers serve; {port} stands for a free port",
        absent=(),
        backends=("endpoint",),
    )
    replicas: int = setting(
        "serve-replicas",
        parse_whole(1, "servers"),
        "servers that --vlm-serve starts, each on a GPU of its own where there are any",
        default="1",
    )
    timeout_s: float = setting(
        "serve-timeout",
        SECONDS,
        "how long a started server may take until it can be asked, in seconds",
        default="1800",
    )
    judge: tuple[str, ...] = setting(
        "judge-serve",
        parse_command,
        "start this server for the judge, if it is needed, and end it with the run",
        absent=(),
    )
    visible_devices: str | None = None


EXACT_MATCHING = "exact_matching"
SERVED = "on a server of this run"
OFFICIAL = "https://api.openai.com/v1"
# What ms-vlmeval's users have set (dataset/utils/judge_util.py, api/gpt.py).
OPENAI_VARIABLES = ("OPENAI_API_KEY", "OPENAI_API_BASE", "LOCAL_LLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAsking:
    """How judges are asked: `changes` are settings of each question, by their names.

    None in it is a setting that is not sent. `extra_body` is the JSON of further
    members of each request, "" for none.
    """

    changes: Mapping[str, int | float | None] = field(default_factory=dict)
    extra_body: str = ""
    form: RequestForm = PLAIN

    def change(self, question: JudgeQuestion) -> JudgeQuestion:
        """Return a question as it is asked."""
        return replace(question, **self.changes)  # type: ignore[arg-type]


AS_ASKED = JudgeAsking()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeEndpoint:
    """A judge: the name it is served under, the servers that do, and their key.

    `api_bases` is empty where the run starts the server.
    """

    name: str
    api_bases: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    asking: JudgeAsking = AS_ASKED

    @property
    def label(self) -> str:
        """What names the judge in scores and reports: asked otherwise, another one."""
        said = [
            f"{name}={NONE if value is None else value}"
            for name, value in sorted(self.asking.changes.items())
        ]
        if self.asking.extra_body:
            said.append(f"extra_body={self.asking.extra_body}")
        return f"{self.name} ({', '.join(said)})" if said else self.name


def choose_judges(
    names: Sequence[str],
    bases: Sequence[str],
    api_key: str | None,
    openai: Mapping[str, str],
    asking: JudgeAsking,
) -> tuple[JudgeEndpoint, ...]:
    """Return the judges of a run, none for exact matching.

    `names`, `bases` and `api_key` are those of our own options, `openai` holds the
    variables of OPENAI_VARIABLES. Raises `VlmEvalError` for judges that do not go
    together, and for one whose address nothing says. OPENAI_API_KEY goes only where it
    is meant for.
    """
    given = "--vlm-judge" if names else "LOCAL_LLM"
    if not names and openai["LOCAL_LLM"]:
        names = (openai["LOCAL_LLM"],)
    if EXACT_MATCHING in names and len(set(names)) > 1:
        raise VlmEvalError(
            f"--vlm-judge={','.join(names)}: exact_matching means to have no judge, "
            "and stands alone."
        )
    if len(set(names)) < len(names):
        raise VlmEvalError(
            f"--vlm-judge={','.join(names)} names a judge twice. Several judges are "
            "different models."
        )
    if not names or names[0] == EXACT_MATCHING:
        return ()
    if len(names) > 1 and len(bases) not in {0, 1, len(names)}:
        raise VlmEvalError(
            f"--vlm-judge names {len(names)} judges and --vlm-judge-api-base "
            f"{len(bases)} URLs. Give one URL for all, or one for each in this order."
        )
    asking.form.check_key(api_key, "judge-")
    judges = []
    for number, name in enumerate(names):
        # All URLs are those of one judge, and one URL is that of all.
        own = (bases[number],) if 1 < len(bases) == len(names) else bases
        key = openai["OPENAI_API_KEY"]
        if own:
            hosts = {urlsplit(base).hostname for base in own}
            if hosts != {urlsplit(OFFICIAL).hostname}:
                key = ""
        elif base := openai["OPENAI_API_BASE"]:
            own = (OFFICIAL if base == "OFFICIAL" else base,)
        elif given == "--vlm-judge" and key:
            own = (OFFICIAL,)
        else:
            otherwise = (
                f"set OPENAI_API_KEY for {OFFICIAL}"
                if given == "--vlm-judge"
                else "do without with --vlm-judge=exact_matching"
            )
            raise VlmEvalError(
                f"{given}={name} names a judge, and nothing says where it is. Give its "
                f"URL with --vlm-judge-api-base or OPENAI_API_BASE, or {otherwise}."
            )
        if asking.form.authorizes:
            # OPENAI_API_KEY was not meant for where a header says who asks.
            key = ""
        judge = JudgeEndpoint(
            name=name,
            # What the run itself starts has no address yet.
            api_bases=tuple(filter(None, own)),
            api_key=api_key or key or None,
            asking=asking,
        )
        judges.append(judge)
    return tuple(judges)


def describe_judges(
    judges: Sequence[JudgeEndpoint], names: Sequence[str], openai: Mapping[str, str]
) -> str:
    """Say in a few words which judges there are, or why there is none."""
    if judges:
        places = [", ".join(map(shown_address, each.api_bases)) for each in judges]
        return ", ".join(
            f"judge {each.label} {f'at {place}' if place else SERVED}"
            for each, place in zip(judges, places, strict=True)
        )
    idle = [name for name in OPENAI_VARIABLES[:2] if openai[name]]
    if idle and not names:
        verb = "names" if len(idle) == 1 else "name"
        return (
            f"exact matching (no judge: {' and '.join(idle)} {verb} none, "
            "--vlm-judge=NAME does)"
        )
    return "exact matching (no judge)"


def choose_hubs(variables: Mapping[str, str]) -> tuple[Hub, ...]:
    """Return the hubs, first the one that ms-vlmeval would take.

    `variables` holds the variables by which their own clients are told where to look
    and where to keep what they have.
    """
    # Records cost every session milliseconds; only those with benchmarks have hubs.
    from pytest_vlmeval.records import Hub

    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(variables.get("HF_HOME") or cache / "huggingface")
    named = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE")
    huggingface = Hub(
        kind="huggingface",
        endpoint=variables.get("HF_ENDPOINT") or "https://huggingface.co",
        cache=Path(named or home / "hub").expanduser().absolute(),
    )
    address = variables.get("MODELSCOPE_ENDPOINT") or variables.get("MODELSCOPE_DOMAIN")
    address = address or "https://modelscope.cn"
    root = variables.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope"
    modelscope = Hub(
        kind="modelscope",
        endpoint=address if "://" in address else f"https://{address}",
        cache=Path(root).expanduser().absolute(),
    )
    # As vlmeval/smp/misc.py:14 reads it.
    if variables.get("VLMEVALKIT_USE_MODELSCOPE", "True") in ("1", "True"):
        return modelscope, huggingface
    return huggingface, modelscope
