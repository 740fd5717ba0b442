"""Where an option may be given, in the order in which one place wins over the next.

The command line (or a call from Python), the task file of --vlm-config, pytest's ini
file, the environment, the default.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from _pytest.config.findpaths import determine_setup, load_config_dict_from_file

from pytest_vlmeval.errors import VlmEvalError, did_you_mean, find_nearest
from pytest_vlmeval.settings.option import (
    ApiKey,
    Given,
    hide_password,
    is_table,
    list_datasets,
)
from pytest_vlmeval.settings.table import BY_NAME, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

    from pytest_vlmeval.settings.groups import Updating
    from pytest_vlmeval.settings.option import Option
    from pytest_vlmeval.settings.task_file import Task


_FLAG = re.compile(r"--vlm-[a-z]+(?:-[a-z]+)*")
PREFIX = "VLM_"
# Variables that are no options.
KEYS = ("VLM_API_KEY", "VLM_JUDGE_API_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was given; `command` holds the texts of options by their names.

    `ini` holds the values of pytest's ini file, which have types where that is a TOML
    file. `variables` are those of the environment. `folder` is where the command was
    given, `root` that of the ini file: paths count from there. `keywords` says that
    options were given as arguments from Python, `updating` which baselines syrupy's own
    options write. `task` is the task file, or the dict in its place (it may hold keys,
    and is never printed).
    """

    command: Mapping[str, str] = field(repr=False)
    ini: Mapping[str, object]
    variables: Mapping[str, str] = field(repr=False)  # keys are among them
    folder: Path
    root: Path
    keywords: bool = False
    updating: Updating = "none"
    task: Task | None = field(default=None, repr=False)

    def with_task(self, tree: Mapping[Any, object] | None = None) -> Sources:
        """Return these with the task of --vlm-config, or of a dict; `VlmEvalError`."""
        option = BY_NAME["config"]
        given = self.find(option)
        if given is None and tree is None:
            return self
        from pytest_vlmeval.settings.task_file import load_task

        source: Path | Mapping[Any, object] = tree or {}
        if given is not None and tree is None:
            source = self._base(given) / self.parse(option, given).expanduser()
        task = load_task(source, self.command.get("model"), self.folder)
        return replace(self, task=task)

    def all(self, option: Option) -> Iterator[Given]:
        """Yield every place that has an option, the one that counts first."""
        task = self.task
        text = self.command.get(option.name)
        # It may choose among the models of the file, by a name of its own there.
        choosing = option.name == "model" and task is not None and task.chosen
        if text is not None and not choosing:
            shown = f"{self.name_of(option)}={option.show(text)}"
            yield Given(text, "command", shown)
        value = task.values.get(option.name) if task is not None else None
        if value is not None and not value.assumed:
            yield value
        if (given := self._in_ini(option)) is not None:
            yield given
        if text := self.variables.get(option.env):
            text = joined(option, [text], self.folder)
            yield Given(text, "environment", f"{option.env}={option.show(text)}")
        if value is not None and value.assumed:
            yield value

    def find(self, option: Option) -> Given | None:
        """Return where an option is given; None if it is not."""
        return next(self.all(option), None)

    def _in_ini(self, option: Option) -> Given | None:
        """Look in the ini file, where a TOML file may have a value of another type."""
        value = self.ini.get(option.ini)
        if value in (None, "", []):
            return None
        values = value if isinstance(value, list) else [value]
        text, fits = joined(option, list(map(str, values)), self.root), True
        if isinstance(value, list):
            fits = option.several and all(isinstance(each, str) for each in value)
        elif not isinstance(value, str):
            text = text.lower() if isinstance(value, bool) else text
            try:
                fits = bool(option.parse(text) == value)
            except ValueError:
                fits = False
        shown = f"{option.ini} = {option.show(text)} in the ini file"
        return Given(text, "ini", shown, mistyped=not fits)

    def _base(self, given: Given | None) -> Path:
        """Return where the paths in an option's value start from."""
        return self.root if given and given.place == "ini" else self.folder

    def path(self, name: str, value: Path | str) -> Path:
        """Return a path in an option's value from where it starts."""
        return self._base(self.find(BY_NAME[name])) / Path(value).expanduser()

    def name_of(self, option: Option) -> str:
        """Return what an option is called where it is given."""
        return option.name.replace("-", "_") if self.keywords else option.flag

    def value(self, option: Option) -> Any:
        """Return an option's value; `VlmEvalError` for a text that is not accepted."""
        given = self.find(option)
        return option.unset if given is None else self.parse(option, given)

    def parse(self, option: Option, given: Given) -> Any:
        """Read the text of an option; `VlmEvalError` for what is not accepted."""
        try:
            if given.mistyped:
                raise ValueError
            return option.parse(given.text)
        except ValueError:
            raise VlmEvalError(
                f"{hide_password(given.shown)} is not accepted: "
                f"{self.name_of(option)} takes {option.parse.accepts}."
            ) from None

    def disagreements(self) -> Iterator[str]:
        """Describe where the task file and another place say different things."""
        task = self.task
        if task is None:
            return
        for option in OPTIONS:
            places = list(self.all(option))
            for other in places[1:]:
                first = places[0]
                if (
                    "task" in (first.place, other.place)
                    and not other.assumed
                    and self.parse(option, other) != self.parse(option, first)
                ):
                    counts = f"{hide_password(first.shown)} counts"
                    yield f"{counts}, not {hide_password(other.shown)}"
        for name, key in task.keys.items():
            variable = "VLM_" + name.replace("-", "_").upper()
            if f"{name}-file" in self.command:
                yield f"--vlm-{name}-file counts, not the key in {task.path}"
            elif self.variables.get(variable, key) != key:
                yield f"the key in {task.path} counts, not {variable}"

    def explain(self, message: str) -> str:
        """Add to an error where the options in it are given, but for the command."""
        named = set(_FLAG.findall(message))
        in_task, told = [], []
        for option in OPTIONS:
            given = self.find(option) if option.flag in named else None
            if given is None:
                continue
            if given.place == "task":
                in_task.append(f"{option.flag} ({given.field})")
            elif given.place != "command":
                where = " in the environment" if given.place == "environment" else ""
                shown = hide_password(given.shown)
                told.append(f"{shown}{where} gives {option.flag}.")
        if in_task and self.task is not None:
            told.insert(0, f"{self.task.path} gives {', '.join(in_task)}.")
        return " ".join([message, *told])

    def misspelt(self) -> list[str]:
        """Explain which variables were to be options, by names that are near."""
        known = [option.env for option in OPTIONS] + list(KEYS)
        found = []
        for name in sorted(self.variables):
            if not name.startswith(PREFIX) or name in known:
                continue
            word = name.removeprefix(PREFIX)
            others = [each.removeprefix(PREFIX) for each in known]
            if near := find_nearest(word, others, most=2, cutoff=0.75):
                meant = " or ".join(PREFIX + each for each in near)
                found.append(
                    f"the variable {name} has no effect. Did you mean {meant}?"
                )
        return found

    def api_key(self, name: str, file: Path | None) -> str | None:
        """Read a key: the file of --vlm-NAME-file, or the variable VLM_NAME.

        That of the task file counts as an option in it does.
        """
        variable = "VLM_" + name.replace("-", "_").upper()
        in_task = self.task.keys.get(name) if self.task else None
        if in_task and f"{name}-file" not in self.command:
            return in_task
        if file is None:
            key = self.variables.get(variable)
            return ApiKey(key) if key else None
        return read_key(file, f"--vlm-{name}-file={file}", variable)


def read_key(file: Path, given: str, variable: str) -> ApiKey:
    """Read the key that a file holds; `given` is how it was named in `VlmEvalError`."""
    try:
        key = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = "not a text in UTF-8"
        if not isinstance(error, UnicodeDecodeError):
            reason = getattr(error, "strerror", None) or "not a path"
        if len(file.parts) == 1 or not file.expanduser().parent.is_dir():
            # It may be the key itself, given where its file belongs.
            given = f"{given.partition('=')[0]}=***"
        raise VlmEvalError(
            f"{given} cannot be read ({reason}). Give a readable text file that holds "
            f"only the key, or set {variable}."
        ) from None
    if not key:
        raise VlmEvalError(
            f"{given} is empty. Give a file that holds the key, or set {variable}."
        )
    return ApiKey(key)


def joined(option: Option, values: Sequence[str], folder: Path) -> str:
    """Put what was given one by one into one text.

    A file is what it is, also where a comma or blank in its path would part two.
    """
    if option.name != "data":
        return ",".join(values)
    return ",".join(
        list_datasets([value])
        if is_table(value) and (folder / Path(value).expanduser()).exists()
        else value
        for value in values
    )


def pytest_sources(
    config: pytest.Config, variables: Mapping[str, str] = os.environ
) -> Sources:
    """Return what pytest was given; `VlmEvalError` for a task that is none."""
    folder = config.invocation_params.dir
    # By -o NAME=VALUE a flag of the task file can be taken back on the command line.
    overrides = dict(
        text.split("=", 1)
        for text in config.getoption("override_ini") or ()
        if "=" in text
    )
    command: dict[str, str] = {}
    for option in OPTIONS:
        value = config.getoption(option.flag)
        if isinstance(value, list):
            command[option.name] = joined(option, value, folder)
        elif value is not None or option.ini in overrides:
            command[option.name] = str(
                overrides[option.ini] if value is None else value
            )
    updating: Updating = "none"
    if config.getoption("update_snapshots", False):
        updating = "all"
    elif config.getoption("update_new_snapshots_only", False):
        updating = "new"
    sources = Sources(
        command=command,
        ini=_ini_values(config.inipath),
        variables=variables,
        folder=folder,
        root=config.rootpath,
        updating=updating,
    )
    return sources.with_task()


def _ini_values(file: Path | None) -> Mapping[str, object]:
    """Return what pytest's ini file holds, a TOML file with the types it has there.

    `getini` takes one type for an option, and several take a number or a word.
    """
    found: Mapping[str, Any] = load_config_dict_from_file(file) or {} if file else {}
    # pytest 9 adds to each value where it is from.
    return {name: getattr(value, "value", value) for name, value in found.items()}


# What only a pytest session has a use for.
OF_SESSIONS = {
    "run": "`pytest --vlm-mode=report --vlm-run=RUN --vlm-export=DIR` writes the files "
    "of one that is stored",
    "wrong": "a sample is right or wrong in `Results.samples`",
    "properties": "`Results.report` has all metrics",
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
    *("model_args", "extra_body", "judge_extra_body", "api_query", "judge_api_query"),
    "columns",
}


def call_sources(
    keywords: Mapping[str, object],
    folder: Path,
    variables: Mapping[str, str] = os.environ,
) -> Sources:
    """Return what a call was given, in `folder`; None is not given.

    The ini file is the one that pytest would read there, so that a call and a session
    of the same project are the same run. Raises `VlmEvalError` for keywords that are
    no option.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    tree = given.get("config")
    if isinstance(tree, Mapping):
        del given["config"]
    elif tree is not None and not isinstance(tree, str | Path):
        raise VlmEvalError(
            f"config is of the type {type(tree).__name__}. It takes the path of a task "
            "file (.yaml, .yml or .json), or the task as a dict: {'eval_backend': "
            "'VLMEvalKit', 'eval_config': {...}}."
        )
    root, file, *_ = determine_setup(
        inifile=None,
        override_ini=None,
        args=[],
        rootdir_cmd_arg=None,
        invocation_dir=folder,
    )
    sources = Sources(
        command={
            _option(name).name: _text(name, value) for name, value in given.items()
        },
        ini=_ini_values(file),
        variables=variables,
        folder=folder,
        root=root,
        keywords=True,
    )
    return sources.with_task(tree if isinstance(tree, Mapping) else None)


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
    question = did_you_mean(keyword, BY_KEYWORD, most=1)
    raise VlmEvalError(
        f"evaluate() has no keyword {keyword}.{question} Its keywords are the options "
        "of `pytest --help` without --vlm-, with _ for -."
    )


def _text(keyword: str, value: object) -> str:
    """Return a value as it would stand on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, PLAIN):
        return str(value)
    if keyword in MAPPINGS and isinstance(value, Mapping):
        if keyword == "model_args":
            return " ".join(shlex.quote(f"{name}={it!r}") for name, it in value.items())
        if keyword == "columns":
            return list_datasets(f"{name}={it}" for name, it in value.items())
        if keyword in ("api_query", "judge_api_query"):
            return urlencode({str(name): str(each) for name, each in value.items()})
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            raise VlmEvalError(
                f"{keyword} holds a value that JSON has not. It takes texts, numbers, "
                "True, False, None, and lists and dicts of these."
            ) from None
    if isinstance(value, list | tuple):
        wrong = [each for each in value if not isinstance(each, PLAIN)]
        if not wrong:
            names = map(str, value)
            return list_datasets(names) if keyword == "data" else ",".join(names)
        value = wrong[0]
    raise VlmEvalError(
        f"{keyword} is of the type {type(value).__name__}. It takes what "
        f"--vlm-{keyword.replace('_', '-')} takes: {_option(keyword).parse.accepts}."
    )
