"""The settings, in the groups that belong together, each beside its options.

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

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.option import (
    YES_NO,
    ApiKey,
    Option,
    fields_of,
    parse_command,
    parse_file_as,
    parse_flag,
    parse_number,
    parse_one_of,
    parse_whole,
    shown_address,
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
# Shorter texts would be found everywhere, and are no secrets.
SHORTEST_SECRET = 4
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_OURS = {
    *("content-type", "content-length", "content-encoding", "transfer-encoding"),
    *("host", "connection", "accept-encoding"),
}
# What of a request's body an option adds.
BODY_ACCEPTS = (
    "a JSON object without keys or passwords, in which messages, stream and n do not "
    "stand, and model, max_tokens and temperature only as null, to leave them out"
)
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


# How images are sent: the dataset's own bytes, or what ms-vlmeval makes of them.
Images = Literal["original", "as-ms-vlmeval"]
# What opens and what closes the thoughts of a model.
TagPair = tuple[str, str]
# Leaves what a model thinks in its answer.
NO_TAGS = "none"
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


def parse_think_tags(text: str) -> str:
    """Read tags around thoughts, and write them one way; "none" looks for none."""
    if text.strip() == NO_TAGS:
        return NO_TAGS
    return " ".join(tag for pair in pair_tags(text) for tag in pair)


PROMPTING_OPTIONS: tuple[Option, ...] = (
    Option(
        "images",
        parse_one_of("original", "as-ms-vlmeval"),
        "original or as-ms-vlmeval",
        "how images are sent: the dataset's own bytes, or as JPEG with the bytes that "
        "ms-vlmeval's API models send",
        default="original",
        metavar="HOW",
        field="prompting.images",
        identity="given",
    ),
    Option(
        "image-size",
        parse_whole(1),
        "a whole number of at least 1 (pixels)",
        "longest side of an image, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
        field="prompting.image_size",
        identity="given",
    ),
    Option(
        "max-pixels",
        parse_whole(1),
        "a whole number of at least 1 (pixels)",
        "largest area of an image, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
        field="prompting.max_pixels",
        identity="given",
    ),
    Option(
        "image-detail",
        parse_one_of("low", "high", "auto"),
        "low, high or auto",
        "detail that requests ask the server to read images in (default: not sent)",
        metavar="DETAIL",
        field="prompting.image_detail",
        identity="given",
    ),
    Option(
        "system-prompt",
        str,
        "a text",
        "system message before each prompt (default: none is added)",
        metavar="TEXT",
        field="prompting.system_prompt",
        identity="given",
    ),
    Option(
        "extra-body",
        parse_body,
        BODY_ACCEPTS,
        "further members of each request's body, such as '{\"top_k\": 1}'; one that is "
        "null is left out: '{\"temperature\": null}'",
        metavar="JSON",
        secret=True,
        field="prompting.extra_body",
        identity="given",
    ),
    Option(
        "think-tags",
        parse_think_tags,
        "names of tags, or pairs of them, separated by commas or blanks, or none",
        "tags that enclose the model's reasoning, beside those that are known "
        "(<think>, [THINK], gpt-oss' channels and others): mull stands for <mull> and "
        "</mull>; none leaves thoughts in the answer, where they are scored as in "
        "ms-vlmeval",
        metavar="TAGS",
        field="prompting.think_tags",
        identity="given",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """What is done to each prompt; None and "" leave it as the dataset has it.

    `images` is how images are sent. `image_size` bounds the longest side of an image,
    in pixels, `max_pixels` its area; larger ones are made smaller, in their
    proportions. `image_detail` is OpenAI's hint
    to the server. `extra_body` is the JSON of an object that is added to each request.
    `think_tags` are around a model's thoughts in its answers, beside those known; with
    "none" thoughts are a part of the answer.
    """

    images: Images = "original"
    image_size: int | None = None
    max_pixels: int | None = None
    image_detail: str | None = None
    system_prompt: str | None = None
    extra_body: str = ""
    think_tags: str = ""

    @property
    def tag_pairs(self) -> tuple[TagPair, ...] | None:
        """The tags in pairs; None if no tags are looked for."""
        if self.think_tags == NO_TAGS:
            return None
        return pair_tags(self.think_tags) if self.think_tags else ()

    @property
    def leaves_images(self) -> bool:
        """Whether images go as they are, so that a body is written in no time."""
        bounds = (self.image_size, self.max_pixels)
        return self.images == "original" and bounds == (None, None)

    def changes(self) -> tuple[str, ...]:
        """Return the names of what of a prompt is not as the dataset has it."""
        return tuple(
            name
            for name in self.__slots__
            if getattr(self, name) != getattr(AS_IT_IS, name)
        )


AS_IT_IS = Prompting()


def choose_prompting(values: Mapping[str, Any], backend: str) -> Prompting:
    """Return what the options say; `VlmEvalError` where the model has no use for it."""
    fields = fields_of(PROMPTING_OPTIONS, values, "prompting")
    body, _ = split_body(values["extra-body"])
    prompting = Prompting(**(fields | {"extra_body": body}))
    given = [f"--vlm-{name.replace('_', '-')}" for name in prompting.changes()]
    if backend == "demo" and given:
        raise VlmEvalError(
            f"{' and '.join(given)}: the demo model takes prompts as they are. Leave "
            f"{'them' if len(given) > 1 else 'it'} out, or name another model."
        )
    if prompting.images == "as-ms-vlmeval" and prompting.max_pixels is not None:
        raise VlmEvalError(
            "--vlm-images=as-ms-vlmeval and --vlm-max-pixels exclude each other: "
            "ms-vlmeval bounds the longest side of an image and never its area. Give "
            "--vlm-image-size, which is its img_size, or leave one of them out."
        )
    return prompting


GateSamples = Literal["none", "regressed", "all"]
# Which baselines a session writes, as syrupy's options say.
Updating = Literal["none", "new", "all"]


BASELINE_OPTIONS: tuple[Option, ...] = (
    Option(
        "level",
        parse_number(0.5, below=1),
        "a confidence: a number from 0.5 to below 1",
        "confidence of comparisons with a baseline or another run: a model that is no "
        "worse fails with a chance of at most 1 less the level",
        default="0.95",
        metavar="LEVEL",
        field="baselines.level",
    ),
    Option(
        "margin",
        parse_number(0, below=100),
        "a number from 0 to below 100 (points)",
        "drop below the baseline that is tolerated, in points (hundredths of the "
        "samples)",
        default="0",
        metavar="POINTS",
        field="baselines.margin",
    ),
    Option(
        "allow-missing-baseline",
        parse_flag,
        YES_NO,
        "a score without a baseline passes, and the report says so",
        default="no",
        field="baselines.allow_missing",
    ),
    Option(
        "gate-samples",
        parse_one_of("none", "regressed", "all"),
        "none, regressed or all",
        "wrong samples whose items fail: none of them, those that were right in the "
        "baseline, or all",
        default="none",
        metavar="WHICH",
        field="baselines.gate_samples",
    ),
    Option(
        "compare-with",
        str,
        "a run's id, the beginning of it, or a model's name",
        "another run of the store, compared with this one sample by sample at the end",
        metavar="RUN",
        field="baselines.compare_with",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSettings:
    """How runs are compared: `level` is a confidence, `margin` in points of 100.

    `compare_with` names another run of the store, None for none. `project` is the
    folder that keeps the baselines of benchmarks which an installed package brings.
    `updating` says which baselines are written instead of compared with.
    """

    level: float = 0.95
    margin: float = 0.0
    allow_missing: bool = False
    gate_samples: GateSamples = "none"
    compare_with: str | None = None
    project: Path = Path()
    updating: Updating = "none"

    @property
    def alpha(self) -> float:
        """How often a comparison may find a drop where there is none."""
        return round(1 - self.level, 12)


Value = str | int | float | bool | None
OWN = ("model-path", "model-class", "model-args")
# What only requests to a server have.
REQUESTED = (
    *("images", "image-size", "max-pixels", "image-detail", "extra-body"),
    "serve",
)


def _value(text: str) -> Value:
    import ast  # this module is loaded in sessions without any model

    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, Value) else text


def parse_arguments(text: str) -> dict[str, Value]:
    """Read `key=value` pairs, separated by blanks or commas; ValueError for others.

    Values are Python's literals, and else texts.
    """
    import shlex

    found: dict[str, Value] = {}
    words = shlex.shlex(text, posix=True)
    # A comma in quotes is part of a value.
    words.whitespace += ","
    words.whitespace_split, words.commenters = True, ""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError
        found[name] = _value(value)
    return found


LOCAL_OPTIONS: tuple[Option, ...] = (
    Option(
        "model-path",
        str,
        "the folder of a checkpoint, or a name on a hub",
        "weights of a model that runs here (--vlm-backend=local)",
        metavar="DIR",
        field="local.path",
        identity="given",
    ),
    Option(
        "model-class",
        str,
        "the name of a class of ms-vlmeval's vlmeval.vlm",
        "class that loads a model that runs here (default: that of ms-vlmeval's "
        "configuration)",
        metavar="CLASS",
        field="local.class_name",
        identity="given",
    ),
    Option(
        "model-args",
        parse_arguments,
        "key=value pairs, separated by blanks or commas",
        "arguments of the constructor of a model that runs here; may be repeated",
        metavar="KEY=VALUE",
        several=True,
        field="local.arguments",
        identity="given",
    ),
    Option(
        "batch-size",
        parse_whole(1),
        "a whole number of at least 1 (prompts)",
        "prompts that a model that runs here answers together, if it can",
        default="8",
        metavar="N",
        field="local.batch_size",
    ),
    Option(
        "local-python",
        Path,
        "a Python interpreter",
        "interpreter whose environment has torch and transformers, for "
        "--vlm-backend=local (default: the running one)",
        metavar="PATH",
        field="local.python",
    ),
)


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

    path: str | None = None
    class_name: str = ""
    arguments: Mapping[str, Value] = field(default_factory=dict)
    batch_size: int = 8
    python: Path | None = None
    visible_devices: str | None = None
    replica: int = 0
    replicas: int = 1
    checksums: Path | None = None
    hub_cache: Path | None = None


def choose_local(
    values: Mapping[str, Any], backend: str, visible_devices: str | None
) -> LocalModel:
    """Return what the options say; `VlmEvalError` for what a local model cannot do."""
    given = [name for name in OWN if values[name]]
    if backend != "local":
        if given:
            raise VlmEvalError(
                f"--vlm-{given[0]} is about a model that runs here. Give "
                "--vlm-backend=local too, or leave it out."
            )
        return LocalModel()
    requested = {**values, "images": values["images"] != "original"}
    for name in REQUESTED:
        if requested[name]:
            raise VlmEvalError(
                f"--vlm-{name} is about requests to a server, and --vlm-backend=local "
                "has none. Parameters of the model go with --vlm-model-args, for "
                "example max_pixels=1003520."
            )
    return LocalModel(
        **fields_of(LOCAL_OPTIONS, values, "local"), visible_devices=visible_devices
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A Ray cluster; `address` is RAY_ADDRESS, None to start one on this machine.

    `replicas` is how many processes answer, None for as many as there is room for.
    """

    address: str | None
    replicas: int | None


def choose_cluster(
    values: Mapping[str, Any], address: str | None
) -> ClusterSettings | None:
    """Return the cluster, None without one; `VlmEvalError` for what excludes it."""
    if values["engine"] != "ray":
        if values["replicas"] is not None:
            raise VlmEvalError(
                f"--vlm-replicas={values['replicas']} is about the processes of a Ray "
                "cluster. Give --vlm-engine=ray too, or leave it out: without Ray "
                "each of xdist's workers (-n) has a replica."
            )
        return None
    for name in ("serve", "judge-serve"):
        if values[name]:
            raise VlmEvalError(
                f"--vlm-{name} and --vlm-engine=ray exclude each other: a server of "
                "this run is reached from this machine alone. Start it beforehand and "
                f"give its URL with --vlm-{name.replace('serve', 'api-base')}, or "
                "leave --vlm-engine out."
            )
    replicas = values["replicas"]
    return ClusterSettings(
        address=address, replicas=None if replicas in (None, "auto") else replicas
    )


def parse_replicas(text: str) -> int | str:
    """Read a whole number from 1 on, or auto."""
    if text == "auto":
        return text
    value = int(text)
    if value < 1:
        raise ValueError
    return value


GATE_OPTIONS: tuple[Option, ...] = (
    Option(
        "thresholds",
        Path,
        "a TOML file",
        "file of the thresholds that scores have to reach (default: thresholds.toml "
        "beside the benchmarks)",
        metavar="FILE",
    ),
    Option(
        "inconclusive",
        parse_one_of("pass", "fail"),
        "pass or fail",
        "whether a score that is too close to its threshold to tell passes (default: "
        "only under the rule confident-below)",
        metavar="HOW",
        field="gates.inconclusive",
    ),
    Option(
        "fdr",
        parse_number(0, above=True, below=1),
        "a number above 0 and below 1",
        "accepted share of false alarms among all failed gates of the run, thresholds "
        "and baselines, by Benjamini-Hochberg; without it each gate counts by itself",
        metavar="SHARE",
        field="gates.false_discoveries",
    ),
    Option(
        "stop-early",
        parse_flag,
        "1, true, yes, on, 0, false, no or off",
        "ask samples in random order (--vlm-seed), and of a dataset no more once its "
        "gates, threshold and baseline, are decided at their levels",
        default="no",
        field="gates.stop_early",
    ),
    Option(
        "min-answered",
        parse_number(0, maximum=100),
        "a number from 0 to 100 (percent)",
        "a score fails if fewer of its samples have a usable answer, in percent",
        default="100",
        metavar="PERCENT",
        field="gates.min_answered",
    ),
    Option(
        "min-judged",
        parse_number(0, maximum=100),
        "a number from 0 to 100 (percent)",
        "a score fails if the judge decided less of what it was asked, in percent",
        default="99",
        metavar="PERCENT",
        field="gates.min_judged",
    ),
    Option(
        "max-cut-off",
        parse_number(0, maximum=100),
        "a number from 0 to 100 (percent)",
        "a score fails if more of its answers were cut off at --vlm-max-tokens, in "
        "percent",
        default="1",
        metavar="PERCENT",
        field="gates.max_cut_off",
    ),
)


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

    thresholds: Path | None = None
    inconclusive: Inconclusive = "rule"
    false_discoveries: float | None = None
    stop_early: bool = False
    min_answered: float = 100.0
    min_judged: float = 99.0
    max_cut_off: float = 1.0
    step_summary: Path | None = None


def choose_gates(
    values: Mapping[str, Any], folder: Path, variables: Mapping[str, str]
) -> GateSettings:
    """Make the settings of the options' values; a file is relative to `folder`.

    GitHub Actions names the file of a job's summary in its environment.
    """
    summary = variables.get("GITHUB_STEP_SUMMARY")
    file: Path | None = values["thresholds"]
    return GateSettings(
        **fields_of(GATE_OPTIONS, values, "gates"),
        thresholds=None if file is None else folder / file.expanduser(),
        step_summary=Path(summary) if summary else None,
    )


REPORT_OPTIONS: tuple[Option, ...] = (
    Option(
        "report",
        parse_file_as(".html", ".htm"),
        "a file that ends in .html",
        "write one HTML file with scores, samples and images at the end of the run",
        metavar="FILE",
    ),
    Option(
        "report-max-mb",
        parse_number(0),
        "a number of at least 0 (MB)",
        "size of the images in the HTML file, in MB (10^6 bytes); beyond it, samples "
        "that are wrong, changed or failed keep theirs first",
        default="30",
        metavar="MB",
        field="report_max_mb",
    ),
    Option(
        "export",
        Path,
        "a folder",
        "write the results as JSON, CSV, Parquet, Markdown and ms-vlmeval's prediction "
        "files into this folder at the end of the run",
        metavar="DIR",
    ),
    Option(
        "predictions",
        parse_one_of("tsv", "xlsx"),
        "tsv or xlsx",
        "format of the prediction files of --vlm-export; xlsx needs openpyxl",
        default="tsv",
        metavar="FORMAT",
        field="predictions",
    ),
    Option(
        "run",
        str,
        "a run's id, the beginning of it, or a model's name",
        "run that --vlm-mode=report is about (default: the newest; --vlm-runs lists "
        "them)",
        metavar="RUN",
        field="run",
    ),
)


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

    def describe(self) -> str:
        """Describe what differs from the questions' own values, "" for nothing."""
        said = [
            f"{name}={NONE if value is None else value}"
            for name, value in sorted(self.changes.items())
        ]
        if self.extra_body:
            said.append(f"extra_body={self.extra_body}")
        return ", ".join(said)


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
        said = self.asking.describe()
        return f"{self.name} ({said})" if said else self.name


def choose_asking(
    values: Mapping[str, Any], headers: tuple[tuple[str, str], ...]
) -> JudgeAsking:
    """Return how the options want judges to be asked; `VlmEvalError`."""
    extra_body, left_out = split_body(values["judge-extra-body"])
    changes: dict[str, int | float | None] = {}
    for name in ("max-tokens", "temperature"):
        member, value = name.replace("-", "_"), values[f"judge-{name}"]
        if member in left_out and value not in (None, NONE):
            raise VlmEvalError(
                f"--vlm-judge-{name}={value:g} and null for {member} in "
                "--vlm-judge-extra-body exclude each other. Leave one of them out."
            )
        if value == NONE or member in left_out:
            changes[member] = None
            left_out |= {member}
        elif value is not None:
            changes[member] = value
    form = choose_form(values, left_out, headers, judge=True)
    return JudgeAsking(changes=changes, extra_body=extra_body, form=form)


def choose_judges(
    names: Sequence[str],
    bases: Sequence[str],
    api_key: str | None,
    openai: Mapping[str, str],
    asking: JudgeAsking = AS_ASKED,
) -> tuple[JudgeEndpoint, ...]:
    """Return the judges of a run, none for exact matching.

    `names`, `bases` and `api_key` are those of our own options, `openai` holds the
    variables of OPENAI_VARIABLES. Raises `VlmEvalError` for judges that do not go
    together, and for one whose address nothing says.
    """
    given = "LOCAL_LLM"
    if names:
        given = "--vlm-judge"
    elif local := openai.get("LOCAL_LLM"):
        names = (local,)
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
    judges = tuple(
        replace(_place(name, places, api_key, openai, given), asking=asking)
        for name, places in zip(names, _spread(names, bases), strict=True)
    )
    check_key(api_key, asking.form.headers, judge=True)
    if any(name.lower() == "authorization" for name, _ in asking.form.headers):
        # OPENAI_API_KEY was not meant for where a header says who asks.
        judges = tuple(replace(judge, api_key=None) for judge in judges)
    return judges


def _spread(names: Sequence[str], bases: Sequence[str]) -> Sequence[Sequence[str]]:
    """Return the URLs of each judge: all of them where there is one judge."""
    if len(names) == 1:
        return [bases]
    if len(bases) not in {0, 1, len(names)}:
        raise VlmEvalError(
            f"--vlm-judge names {len(names)} judges and --vlm-judge-api-base "
            f"{len(bases)} URLs. Give one URL for all, or one for each in this order."
        )
    if len(bases) == len(names):
        return [(base,) for base in bases]
    return [bases] * len(names)


def _place(
    name: str,
    bases: Sequence[str],
    api_key: str | None,
    openai: Mapping[str, str],
    given: str,
) -> JudgeEndpoint:
    """Find a judge's servers; OPENAI_API_KEY goes only where it is meant for."""
    if bases:
        hosts = {urlsplit(base).hostname for base in bases}
        meant = hosts == {urlsplit(OFFICIAL).hostname}
        key = api_key or (openai.get("OPENAI_API_KEY") if meant else None)
        given_bases = tuple(filter(None, bases))
        return JudgeEndpoint(name=name, api_bases=given_bases, api_key=key)
    key = api_key or openai.get("OPENAI_API_KEY") or None
    base = openai.get("OPENAI_API_BASE")
    if base:
        base = OFFICIAL if base == "OFFICIAL" else base
        return JudgeEndpoint(name=name, api_bases=(base,), api_key=key)
    if given == "--vlm-judge" and openai.get("OPENAI_API_KEY"):
        return JudgeEndpoint(name=name, api_bases=(OFFICIAL,), api_key=key)
    raise VlmEvalError(
        f"{given}={name} names a judge, and nothing says where it is. Give its URL "
        "with --vlm-judge-api-base or OPENAI_API_BASE"
        + (
            f", or set OPENAI_API_KEY for {OFFICIAL}"
            if given == "--vlm-judge"
            else ", or do without with --vlm-judge=exact_matching"
        )
        + "."
    )


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
    idle = [name for name in OPENAI_VARIABLES[:2] if openai.get(name)]
    if idle and not names:
        verb = "names" if len(idle) == 1 else "name"
        return (
            f"exact matching (no judge: {' and '.join(idle)} {verb} none, "
            "--vlm-judge=NAME does)"
        )
    return "exact matching (no judge)"


_COMMAND = "a command with {port} in it, such as 'vllm serve MODEL --port {port}'"

SERVING_OPTIONS: tuple[Option, ...] = (
    Option(
        "serve",
        parse_command,
        _COMMAND,
        "start this server for the run, if an answer is missing or stored ones are to "
        "be checked, and end it with the run: swift deploy, vllm serve, lmdeploy, "
        "sglang, transformers serve; {port} stands for a free port",
        metavar="COMMAND",
        field="serving.model",
    ),
    Option(
        "serve-replicas",
        parse_whole(1),
        "a whole number of at least 1 (servers)",
        "servers that --vlm-serve starts, each on a GPU of its own where there are any",
        default="1",
        metavar="N",
        field="serving.replicas",
    ),
    Option(
        "serve-timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "how long a started server may take until it can be asked, in seconds",
        default="1800",
        metavar="SECONDS",
        field="serving.timeout_s",
    ),
    Option(
        "judge-serve",
        parse_command,
        _COMMAND,
        "start this server for the judge, if it is needed, and end it with the run",
        metavar="COMMAND",
        field="serving.judge",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Commands, as words, that serve the model and the judge; () where none is given.

    `replicas` is how many servers the model has, `timeout_s` how long each may take
    until it can be asked. `visible_devices` is CUDA_VISIBLE_DEVICES of the user, None
    where it is unset.
    """

    model: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    replicas: int = 1
    timeout_s: float = 1800
    visible_devices: str | None = None


def choose_serving(
    values: Mapping[str, Any], visible_devices: str | None, *, api_base_given: bool
) -> Serving:
    """Return the servers of a run; `VlmEvalError` for options that exclude each other.

    `api_base_given` tells whether the address of the model's endpoint was given.
    """
    if values["serve"] and api_base_given:
        raise VlmEvalError(
            "--vlm-serve and --vlm-api-base exclude each other: a server that the run "
            "starts says its address itself. Leave one of them out."
        )
    if values["judge-serve"] and values["judge-api-base"]:
        raise VlmEvalError(
            "--vlm-judge-serve and --vlm-judge-api-base exclude each other: a server "
            "that the run starts says its address itself. Leave one of them out."
        )
    if values["judge-serve"] and not values["judge"]:
        raise VlmEvalError(
            "--vlm-judge-serve starts a judge's server, and no judge is named. Give "
            "--vlm-judge=NAME too, the name that server serves it under."
        )
    if values["serve-replicas"] > 1 and not values["serve"]:
        raise VlmEvalError(
            f"--vlm-serve-replicas={values['serve-replicas']} says how many servers "
            "--vlm-serve starts, which is not given."
        )
    return Serving(
        **fields_of(SERVING_OPTIONS, values, "serving"), visible_devices=visible_devices
    )


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
