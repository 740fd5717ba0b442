"""Every option and command of the plugin, in the order of the help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.settings.groups import (
    BASELINE_OPTIONS,
    BODY_ACCEPTS,
    GATE_OPTIONS,
    LOCAL_OPTIONS,
    PROMPTING_OPTIONS,
    REPORT_OPTIONS,
    SERVING_OPTIONS,
    BaselineSettings,
    ClusterSettings,
    GateSettings,
    LocalModel,
    Prompting,
    RequestForm,
    Serving,
    parse_body,
    parse_member,
    parse_query,
    parse_replicas,
)
from pytest_vlmeval.settings.option import (
    YES_NO,
    Backend,
    Option,
    hide_password,
    parse_concurrency,
    parse_datasets,
    parse_flag,
    parse_mirror,
    parse_names,
    parse_number,
    parse_one_of,
    parse_or_none,
    parse_store,
    parse_unless_none,
    parse_urls,
    parse_whole,
)

if TYPE_CHECKING:
    import pytest

    from pytest_vlmeval.records import Hub, Scoring, Setting
    from pytest_vlmeval.settings.groups import JudgeEndpoint

MEMBER_ACCEPTS = "the name of a member, such as max_completion_tokens"
QUERY_ACCEPTS = "NAME=VALUE pairs, joined by &"

Mode = Literal["all", "infer", "score", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run may be told; plain values only.

    `data` holds names and absolute paths of tables. `timeout_s`, `score_timeout_s`:
    seconds for one request, for one scoring; `outage_s` those to wait for endpoints
    that do not answer. `concurrency` is None where it is found out. `max_tokens` and
    `temperature` are None where they are not sent; `form` is how else requests are
    written. `api_key` is never printed: it is left out of `repr`. `judging` says in
    words what `judges` there are: none means exact matching. `data_root` is where the
    dataset files lie, `work_dir` where the store is unless `store` names a database
    (its URL may hold a password and is never printed as it is), `cache_dir` what can be
    made again (sandbox environment, prepared datasets). `data_mirror` is a URL or a
    folder; `download_max_gb` counts 10^9 bytes, `report_max_mb` and `max_reply_mb`
    10^6. `run` names the stored run that a report is about. Of each video `nframe`
    frames are shown, or `fps` per second, or with `video_url` the file; `hubs` are
    where videos come from, first the one ms-vlmeval prefers. `classes` are the classes
    of ms-vlmeval that a task file names for datasets, `remarks` what there is to say of
    that file.
    """

    model: str | None
    preset: str
    backend: Backend
    api_bases: tuple[str, ...]
    api_key: str | None
    form: RequestForm
    serving: Serving
    prompting: Prompting
    media_check: Literal["stop", "warn", "off"]
    local: LocalModel
    cluster: ClusterSettings | None
    judges: tuple[JudgeEndpoint, ...]
    judging: str
    data: tuple[str, ...]
    limit: int | None
    sample: int | None
    seed: int
    nframe: int | None
    fps: float | None
    video_url: bool
    scoring: Scoring | None
    concurrency: int | None
    repeat: int
    max_tokens: int | None
    temperature: float | None
    timeout_s: float
    max_reply_mb: float
    retries: int
    outage_s: float
    mode: Mode
    fresh: bool
    reuse: Literal["checked", "always"]
    spot_check: int
    allow_modified_data: bool
    data_paths: Literal["any", "inside"]
    offline: bool
    data_mirror: str | None
    download_max_gb: float
    download_only: bool
    score_timeout_s: float | None
    report: Path | None
    report_max_mb: float
    export: Path | None
    predictions: Literal["tsv", "xlsx"]
    run: str | None
    work_dir: Path
    store: str | None
    cache_dir: Path
    data_root: Path
    hubs: tuple[Hub, ...]
    baselines: BaselineSettings
    gates: GateSettings
    sandbox_python: Path | None
    classes: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the settings that identify a run, never the key."""
        return f"Settings(model={self.model!r}, backend={self.backend!r})"

    def identity(self) -> dict[str, Setting | None]:
        """Return what tells runs apart, by the names of the options that say so.

        A limit or a temperature that is not sent is None.
        """
        found: dict[str, Setting | None] = {}
        for option in OPTIONS:
            if option.identity is not None:
                value = attrgetter(option.field)(self)
                if isinstance(value, Mapping):
                    value = json.dumps(dict(value), sort_keys=True) if value else ""
                if value or option.identity == "always":
                    found[option.name.replace("-", "_")] = value
        if self.preset == "none":
            del found["preset"]
        return found

    @property
    def store_name(self) -> str:
        """What names the store to a reader."""
        return hide_password(self.store) if self.store else str(self.work_dir)


MODEL_OPTIONS: tuple[Option, ...] = (
    *SERVING_OPTIONS,
    Option(
        "preset",
        parse_one_of("none", "evalscope"),
        "none or evalscope",
        "send what EvalScope sends through ms-vlmeval, where no option says otherwise: "
        "images, their detail, temperature, token limit, and what OpenAI's reasoning "
        "models and Gemini take",
        default="none",
        metavar="PRESET",
        field="preset",
        identity="given",
    ),
    *PROMPTING_OPTIONS,
    Option(
        "max-tokens-name",
        parse_member,
        MEMBER_ACCEPTS,
        "name of the token limit in requests (default: max_tokens, and what a server "
        "asks for that refuses it, such as max_completion_tokens)",
        metavar="NAME",
    ),
    Option(
        "api-query",
        parse_query,
        QUERY_ACCEPTS,
        "query of each request's URL, such as api-version=2024-10-21 for Azure; it is "
        "never shown",
        metavar="QUERY",
        secret=True,
    ),
    Option(
        "api-header-file",
        Path,
        "a readable file",
        "file of further headers of each request, a line each (Name: value), such as "
        "api-key for Azure; they are never shown",
        metavar="FILE",
    ),
    Option(
        "max-reply-mb",
        parse_number(0, above=True),
        "a number above 0 (MB)",
        "longest reply of a model or a judge, in MB (10^6 bytes, unpacked); a longer "
        "one is no answer",
        default="32",
        metavar="MB",
        field="max_reply_mb",
    ),
    Option(
        "media-check",
        parse_one_of("stop", "warn", "off"),
        "stop, warn or off",
        "what to do if the endpoint refuses images, several images in a prompt, or "
        "videos that a selected dataset needs; one request for each finds out before "
        "the run",
        default="stop",
        metavar="ACTION",
        field="media_check",
    ),
    Option(
        "concurrency",
        parse_concurrency,
        "a whole number of at least 1 (requests), or auto",
        "requests in flight at once, in all processes of the session together; auto "
        "finds out how many the endpoints can take, up to 256",
        default="auto",
        metavar="N",
        field="concurrency",
    ),
    Option(
        "timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "deadline of one request, in seconds",
        default="300",
        metavar="SECONDS",
        field="timeout_s",
    ),
    Option(
        "retries",
        parse_whole(0),
        "a whole number of at least 0",
        "how often a request with a transient error is sent again",
        default="5",
        metavar="N",
        field="retries",
    ),
    Option(
        "outage",
        parse_number(0),
        "a number of at least 0 (seconds)",
        "how long the run waits if no endpoint answers any more before it stops, in "
        "seconds",
        default="120",
        metavar="SECONDS",
        field="outage_s",
    ),
    *LOCAL_OPTIONS,
    Option(
        "engine",
        parse_one_of("process", "ray"),
        "process or ray",
        "what asks: pytest's own processes, or actors of a Ray cluster (that of "
        "RAY_ADDRESS, else one that is started here), each with a replica of the model "
        "on a GPU, where there are any",
        default="process",
        metavar="ENGINE",
    ),
    Option(
        "replicas",
        parse_replicas,
        "a whole number of at least 1 (replicas), or auto",
        "replicas that --vlm-engine=ray starts (default: auto, one per GPU of the "
        "cluster, or one per node where there are none)",
        metavar="N",
    ),
)


OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        str,
        "a model's served name, or demo",
        "model to evaluate, by the name its server serves it under; "
        "'demo' is the tiny model that ships with the plugin",
        metavar="NAME",
        field="model",
        identity="always",
    ),
    Option(
        "config",
        Path,
        "a .yaml, .yml or .json file",
        "task file of EvalScope (eval_backend: VLMEvalKit), or configuration of "
        "VLMEvalKit, that is run as it is; other options override it",
        metavar="FILE",
    ),
    Option(
        "backend",
        parse_one_of("auto", "endpoint", "demo", "local"),
        "auto, endpoint, demo or local",
        "where the model runs: an OpenAI-compatible endpoint, here (local), or the "
        "bundled demo model; auto: demo for --vlm-model=demo, else endpoint",
        default="auto",
        metavar="BACKEND",
        field="backend",
        identity="always",
    ),
    Option(
        "api-base",
        parse_urls,
        "http or https URLs, separated by commas",
        "base URL of the OpenAI-compatible endpoint, with or without "
        "/chat/completions at its end; may be repeated: requests go to the least "
        "loaded endpoint that answers",
        default="http://127.0.0.1:8000/v1",
        metavar="URL",
        several=True,
        field="api_bases",
    ),
    Option(
        "api-key-file",
        Path,
        "a readable file",
        "file that holds the endpoint's key (or set VLM_API_KEY; a key is never "
        "given on the command line)",
        metavar="FILE",
    ),
    *MODEL_OPTIONS,
    Option(
        "judge",
        parse_names,
        "names of judges, separated by commas, or exact_matching",
        "model that reads answers which do not match exactly, by the name its server "
        "serves it under; may be repeated, then all of them judge and the majority "
        "decides; exact_matching: no judge (default: LOCAL_LLM, else none)",
        metavar="NAME",
        several=True,
    ),
    Option(
        "judge-api-base",
        parse_names,
        "http or https URLs, separated by commas",
        "base URL of the judge's endpoint; may be repeated: one for each judge, or "
        "several for one "
        "(default: OPENAI_API_BASE, else that of OpenAI if OPENAI_API_KEY is set)",
        metavar="URL",
        several=True,
    ),
    Option(
        "judge-api-key-file",
        Path,
        "a readable file",
        "file that holds the judge's key (or set VLM_JUDGE_API_KEY, or "
        "OPENAI_API_KEY for its own endpoint)",
        metavar="FILE",
    ),
    Option(
        "judge-api-query",
        parse_query,
        QUERY_ACCEPTS,
        "query of the URL of each request to a judge; it is never shown",
        metavar="QUERY",
        secret=True,
    ),
    Option(
        "judge-api-header-file",
        Path,
        "a readable file",
        "file of further headers of each request to a judge, a line each "
        "(Name: value); they are never shown",
        metavar="FILE",
    ),
    Option(
        "judge-max-tokens-name",
        parse_member,
        MEMBER_ACCEPTS,
        "name of the token limit in requests to a judge (default: max_tokens, and what "
        "a server asks for that refuses it)",
        metavar="NAME",
    ),
    Option(
        "judge-max-tokens",
        parse_or_none(parse_whole(1)),
        "a whole number of at least 1 (tokens), or none",
        "longest reply of a judge, in tokens; none: sent without a limit (default: "
        "what the question of ms-vlmeval or of the test says)",
        metavar="N",
    ),
    Option(
        "judge-temperature",
        parse_or_none(parse_number(0)),
        "a number of at least 0, or none",
        "sampling temperature of a judge; none: left to its server (default: what the "
        "question of ms-vlmeval or of the test says, mostly 0)",
        metavar="T",
    ),
    Option(
        "judge-extra-body",
        parse_body,
        BODY_ACCEPTS,
        "further members of the body of each request to a judge; one that is null is "
        "left out",
        metavar="JSON",
        secret=True,
    ),
    Option(
        "data",
        parse_datasets,
        "dataset names or paths of TSV files, separated by commas, and in quotes where "
        "a comma or blank is part of them",
        "only these datasets of the selected benchmarks; any other name, or a TSV of "
        "your own, runs in benchmarks/test_named.py; may be repeated",
        metavar="NAMES",
        several=True,
    ),
    Option(
        "limit",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "only the first N samples of each dataset",
        metavar="N",
        field="limit",
    ),
    Option(
        "sample",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "only N samples of each dataset, drawn at random from all its categories",
        metavar="N",
        field="sample",
    ),
    Option(
        "seed",
        parse_whole(0),
        "a whole number of at least 0",
        "which samples --vlm-sample draws, and in which order --vlm-stop-early asks: "
        "the same for the same number",
        default="0",
        metavar="S",
        field="seed",
    ),
    Option(
        "nframe",
        parse_whole(1),
        "a whole number of at least 1 (frames)",
        "frames sent of each video (default: 8); the names of presets fix theirs",
        metavar="N",
        field="nframe",
    ),
    Option(
        "fps",
        parse_number(0, above=True),
        "a number above 0 (frames per second)",
        "frames sent for each second of a video, instead of --vlm-nframe",
        metavar="F",
        field="fps",
    ),
    Option(
        "video-url",
        parse_flag,
        YES_NO,
        "send the file of each video, of presets too, instead of frames",
        default="no",
        field="video_url",
    ),
    Option(
        "scoring",
        parse_one_of("published", "vlmevalkit", "corrected"),
        "published, vlmevalkit or corrected",
        "score as ms-vlmeval 0.0.20 publishes it, as the newest VLMEvalKit does, or "
        "with known errors corrected (default: published, and corrected for tables of "
        "one's own)",
        metavar="METHOD",
        field="scoring",
    ),
    Option(
        "repeat",
        parse_whole(1),
        "a whole number of at least 1 (times)",
        "how often each sample is asked, at a temperature above 0; scores are means "
        "over the repeats, with their spread",
        default="1",
        metavar="K",
        field="repeat",
    ),
    Option(
        "max-tokens",
        parse_unless_none(parse_whole(1)),
        "a whole number of at least 1 (tokens), or none",
        "longest answer, in tokens, sent as max_tokens (--vlm-max-tokens-name); none: "
        "sent without a limit",
        default="2048",
        metavar="N",
        field="max_tokens",
        identity="always",
    ),
    Option(
        "temperature",
        parse_unless_none(parse_number(0)),
        "a number of at least 0, or none",
        "sampling temperature; none: not sent, so that the server's own counts",
        default="0",
        metavar="T",
        field="temperature",
        identity="always",
    ),
    Option(
        "mode",
        parse_one_of("all", "infer", "score", "report"),
        "all, infer, score or report",
        "ask and score, only ask, only score the stored answers, or run no test and "
        "only write the reports of a stored run",
        default="all",
        metavar="MODE",
        field="mode",
    ),
    *REPORT_OPTIONS,
    Option(
        "work-dir",
        Path,
        "a folder",
        "folder of the run store, relative to pytest's rootdir",
        default=".vlmeval",
        metavar="DIR",
    ),
    Option(
        "store",
        parse_store,
        "postgresql://USER@HOST:PORT/DATABASE",
        "database of the run store, which processes of any machines may share, instead "
        "of the file in --vlm-work-dir; a password is better left to PGPASSWORD, "
        "~/.pgpass or VLM_STORE",
        metavar="URL",
        field="store",
    ),
    Option(
        "cache-dir",
        Path,
        "a folder",
        "folder of the sandbox environment and the prepared datasets "
        "(default: $XDG_CACHE_HOME or ~/.cache, there pytest-vlmeval)",
        metavar="DIR",
    ),
    Option(
        "sandbox-python",
        Path,
        "a Python interpreter",
        "interpreter in whose environment ms-vlmeval is installed, "
        "instead of the environment the plugin builds",
        metavar="PATH",
        field="sandbox_python",
    ),
    Option(
        "score-timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "deadline of the scoring of one dataset, in seconds (default: 600, and 0.1 "
        "more for each sample)",
        metavar="SECONDS",
        field="score_timeout_s",
    ),
    Option(
        "fresh",
        parse_flag,
        YES_NO,
        "ask every sample again (earlier answers stay in the store)",
        default="no",
        field="fresh",
    ),
    Option(
        "reuse",
        parse_one_of("checked", "always"),
        "checked or always",
        "use stored answers once a spot check has shown that they are the current "
        "model's, or always, unchecked",
        default="checked",
        metavar="WHEN",
        field="reuse",
    ),
    Option(
        "spot-check",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "samples that are asked again before their stored answers are used; more if "
        "some answers have changed",
        default="16",
        metavar="N",
        field="spot_check",
    ),
    Option(
        "allow-modified-data",
        parse_flag,
        YES_NO,
        "accept dataset files, downloaded ones too, whose checksum is none that is "
        "published; their scores are marked as modified",
        default="no",
        field="allow_modified_data",
    ),
    Option(
        "data-paths",
        parse_one_of("any", "inside"),
        "any or inside",
        "where the images that your own tables name may be: inside the table's folder, "
        "or anywhere; other datasets never read files outside of their own folders",
        default="any",
        metavar="WHERE",
        field="data_paths",
    ),
    Option(
        "offline",
        parse_flag,
        YES_NO,
        "never touch the network, except for the model's endpoint",
        default="no",
        field="offline",
    ),
    Option(
        "data-mirror",
        parse_mirror,
        "an http or https URL without a password, or a folder that exists",
        "take missing dataset files from here, under their published file names, "
        "not their published addresses; a hub's OWNER/NAME only from a folder's",
        metavar="URL|DIR",
        field="data_mirror",
    ),
    Option(
        "download-max-gb",
        parse_number(0),
        "a number of at least 0 (GB)",
        "refuse to start if more than this is to be downloaded, in GB (10^9 bytes)",
        default="20",
        metavar="GB",
        field="download_max_gb",
    ),
    Option(
        "download-only",
        parse_flag,
        YES_NO,
        "download the files of the selected datasets, then stop",
        default="no",
        field="download_only",
    ),
    *BASELINE_OPTIONS,
    *GATE_OPTIONS,
)


# What runs instead of tests: on the command line only, and not a setting of a run.
COMMANDS: dict[str, str] = {
    "--vlm-list-models": "list ms-vlmeval's models for --vlm-backend=local, then stop",
    "--vlm-doctor": "check everything that a run with these options needs (endpoint, "
    "judge, folders, GPU, sandbox, store), report what to fix, then stop",
    "--vlm-setup": "build the sandbox environment before the first run, or rebuild it "
    "if it does not work, with what the datasets of the given paths or of --vlm-data "
    "need, then stop",
    "--vlm-list": "list the datasets, then stop; only those that all the WORDS "
    "(separated by commas) are part of the name, family, kind or modality of; "
    "the word json prints JSON",
    "--vlm-runs": "list the runs in the store, newest first, then stop",
    "--vlm-compare": "compare run B with run A, sample by sample, then stop; with "
    "--vlm-report or --vlm-export also write it",
}


def add_commands(group: pytest.OptionGroup) -> None:
    """Declare what runs instead of tests."""
    group.addoption("--vlm-doctor", action="store_true", help=COMMANDS["--vlm-doctor"])
    group.addoption("--vlm-setup", action="store_true", help=COMMANDS["--vlm-setup"])
    group.addoption(
        "--vlm-list",
        nargs="?",
        const="",
        default=None,
        metavar="WORDS",
        help=COMMANDS["--vlm-list"],
    )
    group.addoption(
        "--vlm-list-models",
        action="store_true",
        help=COMMANDS["--vlm-list-models"],
    )
    group.addoption("--vlm-runs", action="store_true", help=COMMANDS["--vlm-runs"])
    group.addoption(
        "--vlm-compare", nargs=2, metavar=("A", "B"), help=COMMANDS["--vlm-compare"]
    )
