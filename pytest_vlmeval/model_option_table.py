"""Options of how a model is served, run and asked; a part of the table of all."""

from __future__ import annotations

from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import parse_command, parse_number, parse_whole

_COMMAND = "a command with {port} in it, such as 'vllm serve MODEL --port {port}'"

MODEL_OPTIONS: tuple[Option, ...] = (
    make_option(
        "serve",
        parse_command,
        _COMMAND,
        "start this server for the run, if an answer is missing, and end it with the "
        "run: swift deploy, vllm serve, lmdeploy, sglang, transformers serve; {port} "
        "stands for a free port",
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
)
