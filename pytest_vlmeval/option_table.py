"""Every option of the plugin: name, parser, what it accepts, default and help."""

from __future__ import annotations

from pathlib import Path

from pytest_vlmeval.baseline_settings import BASELINE_OPTIONS
from pytest_vlmeval.gate_settings import GATE_OPTIONS
from pytest_vlmeval.model_option_table import (
    BODY_ACCEPTS,
    MEMBER_ACCEPTS,
    MODEL_OPTIONS,
    QUERY_ACCEPTS,
)
from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import (
    YES_NO,
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
from pytest_vlmeval.report_options import REPORT_OPTIONS
from pytest_vlmeval.request_settings import parse_body, parse_member, parse_query

OPTIONS: tuple[Option, ...] = (
    make_option(
        "model",
        str,
        "a model's served name, or demo",
        "model to evaluate, by the name its server serves it under; "
        "'demo' is the tiny model that ships with the plugin",
        metavar="NAME",
    ),
    make_option(
        "config",
        Path,
        "a .yaml, .yml or .json file",
        "task file of EvalScope (eval_backend: VLMEvalKit), or configuration of "
        "VLMEvalKit, that is run as it is; other options win over it",
        metavar="FILE",
    ),
    make_option(
        "backend",
        parse_one_of("auto", "endpoint", "demo", "local"),
        "auto, endpoint, demo or local",
        "where the model runs: an OpenAI-compatible endpoint, here (local), or the "
        "bundled demo model; auto: demo for --vlm-model=demo, else endpoint",
        default="auto",
        metavar="BACKEND",
    ),
    make_option(
        "api-base",
        parse_urls,
        "http or https URLs, separated by commas",
        "base URL of the OpenAI-compatible endpoint, with or without "
        "/chat/completions at its end; may be repeated: requests go to the least "
        "loaded endpoint that answers",
        default="http://127.0.0.1:8000/v1",
        metavar="URL",
    ),
    make_option(
        "api-key-file",
        Path,
        "a readable file",
        "file that holds the endpoint's key (or set VLM_API_KEY; a key is never "
        "given on the command line)",
        metavar="FILE",
    ),
    *MODEL_OPTIONS,
    make_option(
        "judge",
        parse_names,
        "names of judges, separated by commas, or exact_matching",
        "model that reads answers which do not match exactly, by the name its server "
        "serves it under; may be repeated, then all judge and the majority counts; "
        "exact_matching: no judge (default: LOCAL_LLM, else none)",
        metavar="NAME",
    ),
    make_option(
        "judge-api-base",
        parse_names,
        "http or https URLs, separated by commas",
        "base URL of the judge's endpoint; may be repeated: one for each judge, or "
        "several for one "
        "(default: OPENAI_API_BASE, else that of OpenAI if OPENAI_API_KEY is set)",
        metavar="URL",
    ),
    make_option(
        "judge-api-key-file",
        Path,
        "a readable file",
        "file that holds the judge's key (or set VLM_JUDGE_API_KEY, or "
        "OPENAI_API_KEY for its own endpoint)",
        metavar="FILE",
    ),
    make_option(
        "judge-api-query",
        parse_query,
        QUERY_ACCEPTS,
        "query of the URL of each request to a judge; it is never shown",
        metavar="QUERY",
        secret=True,
    ),
    make_option(
        "judge-api-header-file",
        Path,
        "a readable file",
        "file of further headers of each request to a judge, a line each "
        "(Name: value); they are never shown",
        metavar="FILE",
    ),
    make_option(
        "judge-max-tokens-name",
        parse_member,
        MEMBER_ACCEPTS,
        "name of the token limit in requests to a judge (default: max_tokens, and what "
        "a server asks for that refuses it)",
        metavar="NAME",
    ),
    make_option(
        "judge-max-tokens",
        parse_or_none(parse_whole(1)),
        "a whole number of at least 1 (tokens), or none",
        "longest reply of a judge, in tokens; none: sent without a limit (default: "
        "what the question of ms-vlmeval or of the test says)",
        metavar="N",
    ),
    make_option(
        "judge-temperature",
        parse_or_none(parse_number(0)),
        "a number of at least 0, or none",
        "sampling temperature of a judge; none: left to its server (default: what the "
        "question of ms-vlmeval or of the test says, mostly 0)",
        metavar="T",
    ),
    make_option(
        "judge-extra-body",
        parse_body,
        BODY_ACCEPTS,
        "further members of the body of each request to a judge; one that is null is "
        "left out",
        metavar="JSON",
        secret=True,
    ),
    make_option(
        "data",
        parse_datasets,
        "dataset names or paths of TSV files, separated by commas, and in quotes where "
        "a comma or blank is part of them",
        "only these datasets of the selected benchmarks; any other name, or a TSV of "
        "your own, runs in benchmarks/test_named.py; may be repeated",
        metavar="NAMES",
    ),
    make_option(
        "limit",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "only the first N samples of each dataset",
        metavar="N",
    ),
    make_option(
        "sample",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "only N samples of each dataset, drawn at random from all its categories",
        metavar="N",
    ),
    make_option(
        "seed",
        parse_whole(0),
        "a whole number of at least 0",
        "which samples --vlm-sample draws, and in which order --vlm-stop-early asks: "
        "the same for the same number",
        default="0",
        metavar="S",
    ),
    make_option(
        "nframe",
        parse_whole(1),
        "a whole number of at least 1 (frames)",
        "frames shown of each video (default: 8), but for presets: their names say it",
        metavar="N",
    ),
    make_option(
        "fps",
        parse_number(0, above=True),
        "a number above 0 (frames per second)",
        "frames shown for each second of a video, instead of --vlm-nframe",
        metavar="F",
    ),
    make_option(
        "video-url",
        parse_flag,
        YES_NO,
        "send the file of each video, of presets too, instead of frames",
        default="no",
    ),
    make_option(
        "scoring",
        parse_one_of("published", "vlmevalkit", "corrected"),
        "published, vlmevalkit or corrected",
        "score as ms-vlmeval 0.0.20 publishes it, as the newest VLMEvalKit does, or "
        "with known errors corrected (default: published, and corrected for tables of "
        "one's own)",
        metavar="METHOD",
    ),
    make_option(
        "repeat",
        parse_whole(1),
        "a whole number of at least 1 (times)",
        "how often each sample is asked, at a temperature above 0; scores are means "
        "over the repeats, with their spread",
        default="1",
        metavar="K",
    ),
    make_option(
        "max-tokens",
        parse_unless_none(parse_whole(1)),
        "a whole number of at least 1 (tokens), or none",
        "longest answer, in tokens, sent as max_tokens (--vlm-max-tokens-name); none: "
        "sent without a limit",
        default="2048",
        metavar="N",
    ),
    make_option(
        "temperature",
        parse_unless_none(parse_number(0)),
        "a number of at least 0, or none",
        "sampling temperature; none: not sent, so that the server's own counts",
        default="0",
        metavar="T",
    ),
    make_option(
        "mode",
        parse_one_of("all", "infer", "score", "report"),
        "all, infer, score or report",
        "ask and score, only ask, only score the stored answers, or run no test and "
        "only write the reports of a stored run",
        default="all",
        metavar="MODE",
    ),
    *REPORT_OPTIONS,
    make_option(
        "work-dir",
        Path,
        "a folder",
        "folder of the run store, relative to pytest's rootdir",
        default=".vlmeval",
        metavar="DIR",
    ),
    make_option(
        "store",
        parse_store,
        "postgresql://USER@HOST:PORT/DATABASE",
        "database of the run store, which processes of any machines may share, instead "
        "of the file in --vlm-work-dir; a password is better left to PGPASSWORD, "
        "~/.pgpass or VLM_STORE",
        metavar="URL",
    ),
    make_option(
        "cache-dir",
        Path,
        "a folder",
        "folder of the sandbox environment and the prepared datasets "
        "(default: $XDG_CACHE_HOME or ~/.cache, there pytest-vlmeval)",
        metavar="DIR",
    ),
    make_option(
        "sandbox-python",
        Path,
        "a Python interpreter",
        "interpreter in whose environment ms-vlmeval is installed, "
        "instead of the environment the plugin builds",
        metavar="PATH",
    ),
    make_option(
        "score-timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "deadline of the scoring of one dataset, in seconds (default: 600, and 0.1 "
        "more for each sample)",
        metavar="SECONDS",
    ),
    make_option(
        "fresh",
        parse_flag,
        YES_NO,
        "start over: ask every sample again (earlier answers stay in the store)",
        default="no",
    ),
    make_option(
        "reuse",
        parse_one_of("checked", "always"),
        "checked or always",
        "use stored answers once a spot check has found them to be those of the model "
        "at hand, or always, unchecked",
        default="checked",
        metavar="WHEN",
    ),
    make_option(
        "spot-check",
        parse_whole(1),
        "a whole number of at least 1 (samples)",
        "stored answers that are asked again before any is used; more are where some "
        "of them have changed",
        default="16",
        metavar="N",
    ),
    make_option(
        "allow-modified-data",
        parse_flag,
        YES_NO,
        "accept dataset files, downloaded ones too, whose checksum is none that is "
        "published; their scores are marked as modified",
        default="no",
    ),
    make_option(
        "data-paths",
        parse_one_of("any", "inside"),
        "any or inside",
        "where the images lie that a table of your own may name: inside its folder, or "
        "anywhere; other datasets never read files outside of their own folders",
        default="any",
        metavar="WHERE",
    ),
    make_option(
        "offline",
        parse_flag,
        YES_NO,
        "never touch the network, except for the model's endpoint",
        default="no",
    ),
    make_option(
        "data-mirror",
        parse_mirror,
        "an http or https URL without a password, or a folder that exists",
        "take missing dataset files from here, under their published file names, "
        "not their published addresses; a hub's OWNER/NAME only from a folder's",
        metavar="URL|DIR",
    ),
    make_option(
        "download-max-gb",
        parse_number(0),
        "a number of at least 0 (GB)",
        "refuse to start where more than this is to be downloaded, in GB (10^9 bytes)",
        default="20",
        metavar="GB",
    ),
    make_option(
        "download-only",
        parse_flag,
        YES_NO,
        "download the files of the selected datasets, then stop",
        default="no",
    ),
    *BASELINE_OPTIONS,
    *GATE_OPTIONS,
)
