"""A call of `evaluate` as a place where options are given."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from _pytest.config.findpaths import determine_setup

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_table import OPTIONS
from pytest_vlmeval.option_values import list_datasets
from pytest_vlmeval.sources import Sources, joined

if TYPE_CHECKING:
    from pytest_vlmeval.option import Option

# What only a pytest session has a use for.
OF_SESSIONS = {
    "run": "`pytest --vlm-mode=report --vlm-run=RUN --vlm-export=DIR` writes the files "
    "of one that is stored",
    "download-only": "datasets are downloaded when they are needed",
    "serve": "start the server, and give its address as api_base",
    "serve-replicas": "start the servers, and give their addresses as api_base",
    "serve-timeout": "start the server, and give its address as api_base",
    "judge-serve": "start the server, and give its address as judge_api_base",
}
BY_KEYWORD: Mapping[str, Option] = {
    option.name.replace("-", "_"): option
    for option in OPTIONS
    if option.name not in OF_SESSIONS
}


PLAIN = str | int | float | Path
# Keywords that take a mapping, as its text would be long.
MAPPINGS = {
    *("model_args", "extra_body", "judge_extra_body", "api_query", "judge_api_query")
}


def call_sources(
    keywords: Mapping[str, object], variables: Mapping[str, str], folder: Path
) -> Sources:
    """Return what a call was given, in `folder`; None is not given.

    The ini file is the one that pytest would read there, so that a call and a session
    of the same project are the same run. Raises `VlmEvalError` for keywords that are
    no option.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    tree = None
    config = given.get("config")
    if isinstance(config, Mapping):
        from pytest_vlmeval.tasks import write_mapping

        tree = write_mapping(config)
        del given["config"]
    texts = {_option(name).name: _text(name, value) for name, value in given.items()}
    root, _, found, *_ = determine_setup(
        inifile=None,
        override_ini=None,
        args=[],
        rootdir_cmd_arg=None,
        invocation_dir=folder,
    )

    def ini(option: Option) -> str | None:
        value: Any = found.get(option.ini)
        value = getattr(value, "value", value)
        if value in (None, ""):
            return None
        return joined(option, [str(value)], root)

    return Sources(
        command=lambda option: texts.get(option.name),
        ini=ini,
        variables=variables,
        folder=folder,
        root=root,
        keywords=True,
        tree=tree,
    )


def _option(keyword: str) -> Option:
    if keyword in BY_KEYWORD:
        return BY_KEYWORD[keyword]
    name = keyword.replace("_", "-")
    if name in OF_SESSIONS:
        raise VlmEvalError(
            f"evaluate() has no keyword {keyword}, which belongs to a pytest session: "
            f"{OF_SESSIONS[name]}."
        )
    if keyword in ("api_key", "judge_api_key"):
        raise VlmEvalError(
            f"evaluate() has no keyword {keyword}, as keys in a notebook are shared "
            f"with it: set VLM_{keyword.upper()}, or give {keyword}_file."
        )
    near = difflib.get_close_matches(keyword, BY_KEYWORD, n=1)
    question = f" Did you mean {near[0]}?" if near else ""
    raise VlmEvalError(
        f"evaluate() has no keyword {keyword}.{question} Its keywords are the options "
        "of `pytest --help` without --vlm-, with _ for -."
    )


def _text(keyword: str, value: object) -> str:
    """Give a value as it would stand on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if keyword in MAPPINGS and isinstance(value, Mapping):
        return _mapping_text(keyword, value)
    if isinstance(value, list | tuple) and keyword != "config":
        wrong = [each for each in value if not isinstance(each, PLAIN)]
        if not wrong:
            names = map(str, value)
            return list_datasets(names) if keyword == "data" else ",".join(names)
        value = wrong[0]
    elif isinstance(value, PLAIN):
        return str(value)
    raise VlmEvalError(
        f"{keyword} is of the type {type(value).__name__}. It takes what "
        f"--vlm-{keyword.replace('_', '-')} takes: {_option(keyword).accepts}."
    )


def _mapping_text(keyword: str, value: Mapping[Any, object]) -> str:
    if keyword == "model_args":
        return " ".join(shlex.quote(f"{name}={each!r}") for name, each in value.items())
    if keyword in ("api_query", "judge_api_query"):
        return urlencode({str(name): str(each) for name, each in value.items()})
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise VlmEvalError(
            f"{keyword} holds a value that JSON has not. It takes texts, numbers, "
            "True, False, None, and lists and dicts of these."
        ) from None
