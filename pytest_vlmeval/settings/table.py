"""Every option and command of the plugin, in the order of the help.

An option is a row here, or in a group: a field of the settings with its name, its
parser and its help. What a field takes more than one option for is `made_of` them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vlmeval.errors import VlmEvalError, find_nearest
from pytest_vlmeval.settings.groups import (
    NONE,
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
)
from pytest_vlmeval.settings.option import (
    FILE,
    FOLDER,
    PYTHON,
    RUN,
    SECONDS,
    Backend,
    Option,
    Parser,
    group,
    hide_password,
    made_of,
    options_of,
    or_word,
    parse_columns,
    parse_datasets,
    parse_flag,
    parse_mirror,
    parse_names,
    parse_number,
    parse_one_of,
    parse_store,
    parse_urls,
    parse_whole,
    setting,
    takes,
)

if TYPE_CHECKING:
    import pytest

    from pytest_vlmeval.records import Hub, Scoring, Setting
    from pytest_vlmeval.settings.groups import JudgeEndpoint

Mode = Literal["all", "infer", "score", "report"]
Wrong = Literal["pass", "xfail", "fail"]
JUDGES = Parser(
    parse_names, "names of judges, separated by commas, or exact_matching", "NAME"
)


@takes("a file that ends in .html", "FILE")
def parse_html_file(text: str) -> Path:
    """Read the path of an HTML file."""
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise ValueError
    return Path(text)


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
    that file, and of variables that are misspelt. `has_task` says that there is such a
    file.
    """

    model: str | None = setting(
        "model",
        Parser(str, "a model's served name, or demo", "NAME"),
        "model to evaluate, by the name its server serves it under; "
        "'demo' is the tiny model that ships with the plugin",
        identity="always",
    )
    remarks: tuple[str, ...] = made_of(
        Option(
            "config",
            Parser(Path, "a .yaml, .yml or .json file", "FILE"),
            "task file of EvalScope (eval_backend: VLMEvalKit), or configuration of "
            "VLMEvalKit, that is run as it is; other options override it",
        )
    )
    backend: Backend = setting(
        "backend",
        parse_one_of("auto", "endpoint", "demo", "local"),
        "where the model runs: an OpenAI-compatible endpoint, here (local), or the "
        "bundled demo model; auto: demo for --vlm-model=demo, else endpoint",
        default="auto",
        metavar="BACKEND",
        identity="always",
    )
    api_bases: tuple[str, ...] = setting(
        "api-base",
        parse_urls,
        "base URL of the OpenAI-compatible endpoint, with or without "
        "/chat/completions at its end; may be repeated: requests go to the least "
        "loaded endpoint that answers",
        default="http://127.0.0.1:8000/v1",
        several=True,
    )
    api_key: str | None = made_of(
        Option(
            "api-key-file",
            FILE,
            "file that holds the endpoint's key (or set VLM_API_KEY; a key is never "
            "given on the command line)",
        )
    )
    serving: Serving = group(Serving)
    preset: str = setting(
        "preset",
        parse_one_of("none", "evalscope"),
        "send what EvalScope sends through ms-vlmeval, where no option says otherwise: "
        "images, their detail, temperature, token limit, and what OpenAI's reasoning "
        "models and Gemini take",
        default="none",
        metavar="PRESET",
        identity="given",
        backends=("endpoint",),
    )
    prompting: Prompting = group(Prompting)
    form: RequestForm = made_of(
        Option(
            "max-tokens-name",
            parse_member,
            "name of the token limit in requests (default: max_tokens, and what a "
            "server asks for that refuses it, such as max_completion_tokens)",
            backends=("endpoint",),
        ),
        Option(
            "api-query",
            parse_query,
            "query of each request's URL, such as api-version=2024-10-21 for Azure; it "
            "is never shown",
            absent=(),
            secret=True,
            backends=("endpoint",),
        ),
        Option(
            "api-header-file",
            FILE,
            "file of further headers of each request, a line each (Name: value), such "
            "as api-key for Azure; they are never shown",
            backends=("endpoint",),
        ),
    )
    max_reply_mb: float = setting(
        "max-reply-mb",
        parse_number("a number above 0 (MB)", 0, above=True),
        "longest reply of a model or a judge, in MB (10^6 bytes, unpacked); a longer "
        "one is no answer",
        default="32",
        metavar="MB",
    )
    media_check: Literal["stop", "warn", "off"] = setting(
        "media-check",
        parse_one_of("stop", "warn", "off"),
        "what to do if the endpoint refuses images, several images in a prompt, or "
        "videos that a selected dataset needs; one request for each finds out before "
        "the run",
        default="stop",
        metavar="ACTION",
    )
    concurrency: int | None = setting(
        "concurrency",
        or_word("auto", None, parse_whole(1, "requests")),
        "requests in flight at once, in all processes of the session together; auto "
        "finds out how many the endpoints can take, up to 256",
        default="auto",
    )
    timeout_s: float = setting(
        "timeout", SECONDS, "deadline of one request, in seconds", default="300"
    )
    retries: int = setting(
        "retries",
        parse_whole(0),
        "how often a request with a transient error is sent again",
        default="5",
    )
    outage_s: float = setting(
        "outage",
        parse_number("a number of at least 0 (seconds)", 0),
        "how long the run waits if no endpoint answers any more before it stops, in "
        "seconds",
        default="120",
        metavar="SECONDS",
    )
    local: LocalModel = group(LocalModel)
    cluster: ClusterSettings | None = made_of(
        Option(
            "engine",
            parse_one_of("process", "ray"),
            "what sends the prompts: pytest's own processes, or actors of a Ray "
            "cluster (the one at RAY_ADDRESS, else one that is started here), each "
            "with a replica of the model, on a GPU if there are any",
            default="process",
            metavar="ENGINE",
        ),
        Option(
            "replicas",
            or_word("auto", "auto", parse_whole(1, "replicas")),
            "replicas that --vlm-engine=ray starts (default: auto, one per GPU of the "
            "cluster, or one per node where there are none)",
        ),
    )
    judges: tuple[JudgeEndpoint, ...] = made_of(
        Option(
            "judge",
            JUDGES,
            "model that reads answers which do not match exactly, by the name its "
            "server serves it under; may be repeated, then all of them judge and the "
            "majority decides; exact_matching: no judge (default: LOCAL_LLM, else "
            "none)",
            absent=(),
            several=True,
        ),
        Option(
            "judge-api-base",
            parse_urls,
            "base URL of the judge's endpoint; may be repeated: one for each judge, or "
            "several for one "
            "(default: OPENAI_API_BASE, else that of OpenAI if OPENAI_API_KEY is set)",
            absent=(),
            several=True,
        ),
        Option(
            "judge-api-key-file",
            FILE,
            "file that holds the judge's key (or set VLM_JUDGE_API_KEY, or "
            "OPENAI_API_KEY for its own endpoint)",
        ),
        Option(
            "judge-api-query",
            parse_query,
            "query of the URL of each request to a judge; it is never shown",
            absent=(),
            secret=True,
        ),
        Option(
            "judge-api-header-file",
            FILE,
            "file of further headers of each request to a judge, a line each "
            "(Name: value); they are never shown",
        ),
        Option(
            "judge-max-tokens-name",
            parse_member,
            "name of the token limit in requests to a judge (default: max_tokens, and "
            "what a server asks for that refuses it)",
        ),
        Option(
            "judge-max-tokens",
            or_word("none", NONE, parse_whole(1, "tokens")),
            "longest reply of a judge, in tokens; none: sent without a limit (default: "
            "what the question of ms-vlmeval or of the test says)",
        ),
        Option(
            "judge-temperature",
            or_word("none", NONE, parse_number("a number of at least 0", 0)),
            "sampling temperature of a judge; none: left to its server (default: what "
            "the question of ms-vlmeval or of the test says, mostly 0)",
            metavar="T",
        ),
        Option(
            "judge-extra-body",
            parse_body,
            "further members of the body of each request to a judge; one that is null "
            "is left out",
            absent="",
            secret=True,
        ),
    )
    judging: str
    data: tuple[str, ...] = setting(
        "data",
        parse_datasets,
        "only these datasets of the selected benchmarks; any other name, or a table of "
        "your own, runs in benchmarks/test_named.py; may be repeated",
        absent=(),
        several=True,
    )
    columns: Mapping[str, str] = setting(
        "columns",
        parse_columns,
        "which columns of your own tables are for what, where their names do not tell; "
        "one with an empty name is left out",
        absent={},
    )
    limit: int | None = setting(
        "limit", parse_whole(1, "samples"), "only the first N samples of each dataset"
    )
    sample: int | None = setting(
        "sample",
        parse_whole(1, "samples"),
        "only N samples of each dataset, drawn at random from all its categories",
    )
    seed: int = setting(
        "seed",
        parse_whole(0),
        "which samples --vlm-sample draws, and in which order --vlm-stop-early asks: "
        "the same for the same number",
        default="0",
        metavar="S",
    )
    nframe: int | None = setting(
        "nframe",
        parse_whole(1, "frames"),
        "frames sent of each video (default: 8); the names of presets fix theirs",
    )
    fps: float | None = setting(
        "fps",
        parse_number("a number above 0 (frames per second)", 0, above=True),
        "frames sent for each second of a video, instead of --vlm-nframe",
        metavar="F",
    )
    video_url: bool = setting(
        "video-url",
        parse_flag,
        "send the file of each video, of presets too, instead of frames",
        default="no",
    )
    scoring: Scoring | None = setting(
        "scoring",
        parse_one_of("published", "vlmevalkit", "corrected"),
        "score as ms-vlmeval 0.0.20 publishes it, as the newest VLMEvalKit does, or "
        "with known errors corrected (default: published, and corrected for tables of "
        "one's own)",
        metavar="METHOD",
    )
    repeat: int = setting(
        "repeat",
        parse_whole(1, "times"),
        "how often each sample is asked, at a temperature above 0; scores are means "
        "over the repeats, with their spread",
        default="1",
        metavar="K",
    )
    max_tokens: int | None = setting(
        "max-tokens",
        or_word("none", None, parse_whole(1, "tokens")),
        "longest answer, in tokens, sent as max_tokens (--vlm-max-tokens-name); none: "
        "sent without a limit",
        default="2048",
        identity="always",
    )
    temperature: float | None = setting(
        "temperature",
        or_word("none", None, parse_number("a number of at least 0", 0)),
        "sampling temperature; none: not sent, so the server uses its own",
        default="0",
        metavar="T",
        identity="always",
    )
    mode: Mode = setting(
        "mode",
        parse_one_of("all", "infer", "score", "report"),
        "ask and score, only ask, only score the stored answers, or run no test and "
        "only write the reports of a stored run",
        default="all",
        metavar="MODE",
    )
    wrong: Wrong = setting(
        "wrong",
        parse_one_of("pass", "xfail", "fail"),
        "what the item of a wrong answer does, and so how JUnit's readers count it: "
        "pass (the terminal counts it as wrong), xfail (they count it as skipped), or "
        "fail, which also fails the run",
        default="pass",
        metavar="OUTCOME",
    )
    properties: Literal["main", "all"] = setting(
        "properties",
        parse_one_of("main", "all"),
        "properties of a score's test case in --junitxml: the main figures and what "
        "the gates found, or also all metrics, repeats and figures of the gates",
        default="main",
        metavar="WHICH",
    )
    report: Path | None = setting(
        "report",
        parse_html_file,
        "write one HTML file with scores, samples and images at the end of the run",
    )
    report_max_mb: float = setting(
        "report-max-mb",
        parse_number("a number of at least 0 (MB)", 0),
        "size of the images in the HTML file, in MB (10^6 bytes); beyond it, samples "
        "that are wrong, changed or failed keep theirs first",
        default="30",
        metavar="MB",
    )
    export: Path | None = setting(
        "export",
        FOLDER,
        "write the results as JSON, CSV, Parquet, Markdown and ms-vlmeval's prediction "
        "files into this folder at the end of the run",
    )
    predictions: Literal["tsv", "xlsx"] = setting(
        "predictions",
        parse_one_of("tsv", "xlsx"),
        "format of the prediction files of --vlm-export; xlsx needs openpyxl",
        default="tsv",
        metavar="FORMAT",
    )
    run: str | None = setting(
        "run",
        RUN,
        "run whose reports --vlm-mode=report writes (default: the newest; --vlm-runs "
        "lists them)",
    )
    work_dir: Path = setting(
        "work-dir",
        FOLDER,
        "folder of the run store, relative to pytest's rootdir",
        default=".vlmeval",
    )
    store: str | None = setting(
        "store",
        parse_store,
        "database of the run store, which processes of any machines may share, instead "
        "of the file in --vlm-work-dir; a password is better left to PGPASSWORD, "
        "~/.pgpass or VLM_STORE",
    )
    cache_dir: Path = setting(
        "cache-dir",
        FOLDER,
        "folder of the sandbox environment and the prepared datasets "
        "(default: $XDG_CACHE_HOME or ~/.cache, there pytest-vlmeval)",
    )
    sandbox_python: Path | None = setting(
        "sandbox-python",
        PYTHON,
        "interpreter in whose environment ms-vlmeval is installed, "
        "instead of the environment the plugin builds",
    )
    score_timeout_s: float | None = setting(
        "score-timeout",
        SECONDS,
        "deadline of the scoring of one dataset, in seconds (default: 600, and 0.1 "
        "more for each sample)",
    )
    fresh: bool = setting(
        "fresh",
        parse_flag,
        "ask every sample again (earlier answers stay in the store)",
        default="no",
    )
    reuse: Literal["checked", "always"] = setting(
        "reuse",
        parse_one_of("checked", "always"),
        "use stored answers once a spot check has shown that they are the current "
        "model's, or always, unchecked",
        default="checked",
        metavar="WHEN",
    )
    spot_check: int = setting(
        "spot-check",
        parse_whole(1, "samples"),
        "samples that are asked again before their stored answers are used; more if "
        "some answers have changed",
        default="16",
    )
    allow_modified_data: bool = setting(
        "allow-modified-data",
        parse_flag,
        "accept dataset files, downloaded ones too, whose checksum is not a published "
        "one; their scores are marked as modified",
        default="no",
    )
    data_paths: Literal["any", "inside"] = setting(
        "data-paths",
        parse_one_of("any", "inside"),
        "where the images that your own tables name may be: inside the table's folder, "
        "or anywhere; other datasets never read files outside of their own folders",
        default="any",
        metavar="WHERE",
    )
    offline: bool = setting(
        "offline",
        parse_flag,
        "never touch the network, except for the model's endpoint",
        default="no",
    )
    data_mirror: str | None = setting(
        "data-mirror",
        parse_mirror,
        "take missing dataset files from here instead of from their published "
        "addresses, by their file names; a folder also replaces the hubs of videos, "
        "with a repository's files in OWNER/NAME",
    )
    download_max_gb: float = setting(
        "download-max-gb",
        parse_number("a number of at least 0 (GB)", 0),
        "refuse to start if more than this is to be downloaded, in GB (10^9 bytes)",
        default="20",
        metavar="GB",
    )
    download_only: bool = setting(
        "download-only",
        parse_flag,
        "download the files of the selected datasets, then stop",
        default="no",
    )
    baselines: BaselineSettings = group(BaselineSettings)
    gates: GateSettings = group(GateSettings)
    data_root: Path
    hubs: tuple[Hub, ...]
    classes: Mapping[str, str] = field(default_factory=dict)
    has_task: bool = False

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
        if self.preset == NONE:
            del found["preset"]
        return found

    @property
    def store_name(self) -> str:
        """What names the store to a reader."""
        return hide_password(self.store) if self.store else str(self.work_dir)


OPTIONS: tuple[Option, ...] = tuple(options_of(Settings))
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


def check_together(
    values: Mapping[str, Any], backend: Backend, *, api_base_given: bool
) -> None:
    """Raise `VlmEvalError` for options that do not go together.

    `api_base_given` tells whether the address of the model's endpoint was given.
    """
    for option in OPTIONS:
        if (
            option.backends
            and backend not in option.backends
            and values[option.name] != option.unset
        ):
            if backend == "local":
                advice = (
                    "Leave it out: parameters of a local model go with "
                    "--vlm-model-args, for example max_pixels=1003520."
                )
            elif backend == "demo":
                advice = "Leave it out, or name another model."
            else:
                advice = (
                    f"Give --vlm-backend={option.backends[0]} too, or leave it out."
                )
            raise VlmEvalError(
                f"{option.flag} is for --vlm-backend={' or '.join(option.backends)}, "
                f"and the model is of --vlm-backend={backend}. {advice}"
            )
    if backend != "endpoint":
        for name in ("max-tokens", "temperature"):
            if values[name] is None:
                raise VlmEvalError(
                    f"--vlm-{name}=none leaves it to the model's server, and "
                    f"--vlm-backend={backend} has none. Give a number, or leave it out."
                )
    if values["images"] == "as-ms-vlmeval" and values["max-pixels"] is not None:
        raise VlmEvalError(
            "--vlm-images=as-ms-vlmeval and --vlm-max-pixels exclude each other: "
            "ms-vlmeval bounds the longest side of an image and never its area. Give "
            "--vlm-image-size, which is its img_size, or leave one of them out."
        )
    if values["require-baseline"] and values["allow-missing-baseline"]:
        raise VlmEvalError(
            "--vlm-require-baseline and --vlm-allow-missing-baseline exclude each "
            "other: a score without a baseline either fails or passes. Give one of "
            "them."
        )
    ways = [f"--vlm-{name}" for name in ("nframe", "fps", "video-url") if values[name]]
    if len(ways) > 1:
        raise VlmEvalError(
            f"{' and '.join(ways)} exclude each other: a video is shown as N frames, "
            "as F frames per second or as its file. Give one of them."
        )
    _check_repeat(values, backend)
    _check_stop_early(values)
    _check_servers(values, api_base_given=api_base_given)


def _check_repeat(values: Mapping[str, Any], backend: Backend) -> None:
    repeat = values["repeat"]
    given = f"--vlm-repeat={repeat} asks each sample {repeat} times"
    if repeat > 1 and backend == "demo":
        raise VlmEvalError(
            f"{given}, but the demo model answers a prompt always alike. Leave "
            "--vlm-repeat out."
        )
    if repeat > 1 and values["temperature"] == 0:
        raise VlmEvalError(
            f"{given}, but at --vlm-temperature=0 a model answers alike each time. "
            "Give a temperature above 0, for example --vlm-temperature=0.7, or leave "
            "--vlm-repeat out."
        )


def _check_stop_early(values: Mapping[str, Any]) -> None:
    """Raise for what excludes that gates are decided one by one."""
    mode = values["mode"]
    why = ""
    if mode in ("infer", "score"):
        why = (
            f"--vlm-mode={mode} exclude each other: samples are scored while others "
            "are asked. Give --vlm-mode=all, or leave --vlm-stop-early out."
        )
    elif values["fdr"] is not None:
        why = (
            "--vlm-fdr exclude each other: the one decides each gate by itself, the "
            "other all together. Leave one of them out."
        )
    elif values["repeat"] > 1:
        why = (
            f"--vlm-repeat={values['repeat']} exclude each other: a gate is decided "
            "early only by samples that are asked once. Leave one of them out."
        )
    if values["stop-early"] and why:
        raise VlmEvalError(f"--vlm-stop-early and {why}")


def _check_servers(values: Mapping[str, Any], *, api_base_given: bool) -> None:
    """Raise for servers that no run, or no other machine, could use."""
    given = {"": api_base_given, "judge-": bool(values["judge-api-base"])}
    for role, has_address in given.items():
        if not values[f"{role}serve"]:
            continue
        if has_address:
            raise VlmEvalError(
                f"--vlm-{role}serve and --vlm-{role}api-base exclude each other: a "
                "server that the run starts says its address itself. Leave one of them "
                "out."
            )
        if values["engine"] == "ray":
            raise VlmEvalError(
                f"--vlm-{role}serve and --vlm-engine=ray exclude each other: a server "
                "of this run is reached from this machine alone. Start it beforehand "
                f"and give its URL with --vlm-{role}api-base, or leave --vlm-engine "
                "out."
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
    if values["engine"] != "ray" and values["replicas"] is not None:
        raise VlmEvalError(
            f"--vlm-replicas={values['replicas']} is about the processes of a Ray "
            "cluster. Give --vlm-engine=ray too, or leave it out: without Ray "
            "each of xdist's workers (-n) has a replica."
        )


# What runs instead of tests: on the command line only, and not a setting of a run.
COMMANDS: dict[str, str] = {
    "--vlm-init": "write a starter project into the current folder: benchmarks, "
    "thresholds, a workflow for GitHub (--vlm-init=gitlab: for GitLab) and a "
    ".gitignore; then stop",
    "--vlm-list-models": "list ms-vlmeval's models for --vlm-backend=local, then stop",
    "--vlm-doctor": "check everything that a run with these options needs (endpoint, "
    "judge, folders, GPU, sandbox, store), report what to fix, then stop",
    "--vlm-setup": "build the sandbox environment before the first run, or rebuild it "
    "if it does not work, with what the datasets of the given paths, of -m and -k or "
    "of --vlm-data need, then stop",
    "--vlm-setup=all": "the same, with what any dataset needs",
    "--vlm-list": "list the datasets, then stop; with WORDS (separated by commas) only "
    "those that have each word in their name, family, kind or modality; the word "
    "presets also lists each dataset's presets, the word json prints JSON",
    "--vlm-runs": "list the runs in the store, newest first, then stop",
    "--vlm-compare": "compare run B with run A, sample by sample, then stop; with "
    "--vlm-report or --vlm-export also write it",
}
# What a command takes; the others are flags.
_WORDS: dict[str, dict[str, Any]] = {
    "--vlm-init": {
        "nargs": "?",
        "const": "github",
        "choices": ("github", "gitlab"),
        "metavar": "CI",
    },
    "--vlm-list": {"nargs": "?", "const": "", "metavar": "WORDS"},
    "--vlm-compare": {"nargs": "*", "metavar": ("A", "B")},
}


def explain_unknown(arguments: Iterable[str]) -> str:
    """Explain which of a command's unknown arguments was to be an option of ours.

    "" if none was.
    """
    known = [option.flag for option in OPTIONS] + list(COMMANDS)
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--vlm-") and flag not in known:
            names = [each.removeprefix("--vlm-") for each in known]
            word = flag.removeprefix("--vlm-").replace("_", "-")
            near = find_nearest(word, names, most=2, cutoff=0.75)
            meant = " or ".join(f"--vlm-{name}" for name in near)
            question = f" Did you mean {meant}?" if meant else ""
            return (
                f"There is no option {flag}.{question} `pytest --help` lists those "
                "that begin with --vlm-."
            )
    return ""


def add_options(parser: pytest.Parser) -> None:
    """Declare every option for the command line and the ini file."""
    group = parser.getgroup(
        "vlmeval",
        "evaluation of vision-language models (each option may also stand in the "
        "ini file as vlm_NAME or in the environment as VLM_NAME)",
    )
    for option in OPTIONS:
        text = option.help
        if option.default is not None:
            text += f" (default: {option.default})"
        takes: dict[str, Any] = {"action": "store_const", "const": "yes"}
        if option.placeholder is not None:
            action = "append" if option.several else "store"
            takes = {"action": action, "metavar": option.placeholder}
        group.addoption(option.flag, default=None, help=text, **takes)
        parser.addini(option.ini, f"default of {option.flag}", default=None)
    for name, text in COMMANDS.items():
        group.addoption(name, help=text, **_WORDS.get(name, {"action": "store_true"}))
