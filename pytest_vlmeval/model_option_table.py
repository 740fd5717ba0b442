"""Options of how a model is served, run and asked; a part of the table of all."""

from __future__ import annotations

from pathlib import Path

from pytest_vlmeval.cluster_settings import parse_replicas
from pytest_vlmeval.local_settings import parse_arguments
from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import (
    parse_command,
    parse_concurrency,
    parse_number,
    parse_one_of,
    parse_whole,
)
from pytest_vlmeval.prompt_settings import parse_think_tags
from pytest_vlmeval.request_settings import parse_body, parse_member, parse_query

_COMMAND = "a command with {port} in it, such as 'vllm serve MODEL --port {port}'"

BODY_ACCEPTS = (
    "a JSON object without keys or passwords, in which messages, stream and n do not "
    "stand, and model, max_tokens and temperature only as null, to leave them out"
)
MEMBER_ACCEPTS = "the name of a member, such as max_completion_tokens"
QUERY_ACCEPTS = "NAME=VALUE pairs, joined by &"

MODEL_OPTIONS: tuple[Option, ...] = (
    make_option(
        "serve",
        parse_command,
        _COMMAND,
        "start this server for the run, if an answer is missing or stored ones are to "
        "be checked, and end it with the run: swift deploy, vllm serve, lmdeploy, "
        "sglang, transformers serve; {port} stands for a free port",
        metavar="COMMAND",
    ),
    make_option(
        "serve-replicas",
        parse_whole(1),
        "a whole number of at least 1 (servers)",
        "servers that --vlm-serve starts, each on a GPU of its own where there are any",
        default="1",
        metavar="N",
    ),
    make_option(
        "serve-timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "how long a started server may take until it can be asked, in seconds",
        default="1800",
        metavar="SECONDS",
    ),
    make_option(
        "judge-serve",
        parse_command,
        _COMMAND,
        "start this server for the judge, if it is needed, and end it with the run",
        metavar="COMMAND",
    ),
    make_option(
        "preset",
        parse_one_of("none", "evalscope"),
        "none or evalscope",
        "send what EvalScope sends through ms-vlmeval, where no option says otherwise: "
        "images, their detail, temperature, token limit, and what OpenAI's reasoning "
        "models and Gemini take",
        default="none",
        metavar="PRESET",
    ),
    make_option(
        "images",
        parse_one_of("original", "as-ms-vlmeval"),
        "original or as-ms-vlmeval",
        "how images are sent: the dataset's own bytes, or as JPEG with the bytes that "
        "ms-vlmeval's API models send",
        default="original",
        metavar="HOW",
    ),
    make_option(
        "image-size",
        parse_whole(1),
        "a whole number of at least 1 (pixels)",
        "longest side of a picture, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
    ),
    make_option(
        "max-pixels",
        parse_whole(1),
        "a whole number of at least 1 (pixels)",
        "largest area of a picture, in pixels: larger ones are made smaller "
        "(default: as they are)",
        metavar="PIXELS",
    ),
    make_option(
        "image-detail",
        parse_one_of("low", "high", "auto"),
        "low, high or auto",
        "how closely the server shall look at pictures (default: not sent)",
        metavar="DETAIL",
    ),
    make_option(
        "system-prompt",
        str,
        "a text",
        "message of the system ahead of each prompt (default: none of our own)",
        metavar="TEXT",
    ),
    make_option(
        "extra-body",
        parse_body,
        BODY_ACCEPTS,
        "further members of each request's body, such as '{\"top_k\": 1}'; one that is "
        "null is left out: '{\"temperature\": null}'",
        metavar="JSON",
        secret=True,
    ),
    make_option(
        "max-tokens-name",
        parse_member,
        MEMBER_ACCEPTS,
        "name of the token limit in requests (default: max_tokens, and what a server "
        "asks for that refuses it, such as max_completion_tokens)",
        metavar="NAME",
    ),
    make_option(
        "api-query",
        parse_query,
        QUERY_ACCEPTS,
        "query of each request's URL, such as api-version=2024-10-21 for Azure; it is "
        "never shown",
        metavar="QUERY",
        secret=True,
    ),
    make_option(
        "api-header-file",
        Path,
        "a readable file",
        "file of further headers of each request, a line each (Name: value), such as "
        "api-key for Azure; they are never shown",
        metavar="FILE",
    ),
    make_option(
        "think-tags",
        parse_think_tags,
        "names of tags, or pairs of them, separated by commas or blanks, or none",
        "tags around what the model thinks, beside those that are known (<think>, "
        "[THINK], gpt-oss' channels and others): mull stands for <mull> and </mull>; "
        "none leaves thoughts in the answer, where they are scored as in ms-vlmeval",
        metavar="TAGS",
    ),
    make_option(
        "max-reply-mb",
        parse_number(0, above=True),
        "a number above 0 (MB)",
        "longest reply of a model or a judge, in MB (10^6 bytes, unpacked); a longer "
        "one is no answer",
        default="32",
        metavar="MB",
    ),
    make_option(
        "media-check",
        parse_one_of("stop", "warn", "off"),
        "stop, warn or off",
        "what to do where the endpoint refuses pictures, several of them in a prompt, "
        "or videos, and a selected dataset needs that; it is tried before the run, "
        "with one request for each",
        default="stop",
        metavar="ACTION",
    ),
    make_option(
        "concurrency",
        parse_concurrency,
        "a whole number of at least 1 (requests), or auto",
        "requests in flight at once, in all processes of the session together; auto "
        "finds out how many the endpoints can take, up to 256",
        default="auto",
        metavar="N",
    ),
    make_option(
        "timeout",
        parse_number(0, above=True),
        "a number above 0 (seconds)",
        "deadline of one request, in seconds",
        default="300",
        metavar="SECONDS",
    ),
    make_option(
        "retries",
        parse_whole(0),
        "a whole number of at least 0",
        "how often a request that may still succeed is sent again",
        default="5",
        metavar="N",
    ),
    make_option(
        "outage",
        parse_number(0),
        "a number of at least 0 (seconds)",
        "how long to wait for endpoints none of which answers any more, in seconds, "
        "before the run is stopped",
        default="120",
        metavar="SECONDS",
    ),
    make_option(
        "model-path",
        str,
        "the folder of a checkpoint, or a name on a hub",
        "weights of a model that runs here (--vlm-backend=local)",
        metavar="DIR",
    ),
    make_option(
        "model-class",
        str,
        "the name of a class of ms-vlmeval's vlmeval.vlm",
        "class that loads a model that runs here (default: that of ms-vlmeval's "
        "configuration)",
        metavar="CLASS",
    ),
    make_option(
        "model-args",
        parse_arguments,
        "key=value pairs, separated by blanks or commas",
        "arguments of the constructor of a model that runs here; may be repeated",
        metavar="KEY=VALUE",
    ),
    make_option(
        "batch-size",
        parse_whole(1),
        "a whole number of at least 1 (prompts)",
        "prompts that a model that runs here answers together, if it can",
        default="8",
        metavar="N",
    ),
    make_option(
        "engine",
        parse_one_of("process", "ray"),
        "process or ray",
        "what asks: pytest's own processes, or actors of a Ray cluster (that of "
        "RAY_ADDRESS, else one that is started here), each with a replica of the model "
        "on a GPU, where there are any",
        default="process",
        metavar="ENGINE",
    ),
    make_option(
        "replicas",
        parse_replicas,
        "a whole number of at least 1 (replicas), or auto",
        "replicas that --vlm-engine=ray starts (default: auto, one per GPU of the "
        "cluster, or one per node where there are none)",
        metavar="N",
    ),
    make_option(
        "local-python",
        Path,
        "a Python interpreter",
        "interpreter whose environment has torch and transformers, for "
        "--vlm-backend=local (default: the running one)",
        metavar="PATH",
    ),
)
