"""Where an option may be given, in the order in which one place wins over the next.

The command line (or a call from Python), the task file of --vlm-config, pytest's ini
file, the environment, the default.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode

from _pytest.config.findpaths import determine_setup, load_config_dict_from_file

from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.settings.option import (
    ApiKey,
    hide_password,
    is_table,
    list_datasets,
)
from pytest_vlmeval.settings.table import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

    from pytest_vlmeval.settings.option import Option
    from pytest_vlmeval.settings.task_fields import Task

Place = Literal["command", "task", "ini", "environment"]
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


class Given(NamedTuple):
    """The text of an option, the place it was given in, and how it stands there.

    `assumed`: ms-vlmeval takes it where the task file says nothing. `mistyped`: a TOML
    file has it as a value of a type that the option does not take.
    """

    text: str
    place: Place
    shown: str
    assumed: bool = False
    mistyped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was given; `command` finds the text of an option, if there is any.

    `ini` holds the values of pytest's ini file, which have types where that is a TOML
    file. `variables` are those of the environment. `folder` is where the command was
    given, `root` that of the ini file: paths count from there. `keywords` says that
    options were given as arguments from Python, `tree` is the JSON of a task given so
    (it may hold keys, and is never printed), `write_all` and `write_new` which
    baselines syrupy's own options write.
    """

    command: Callable[[Option], str | None]
    ini: Mapping[str, object]
    variables: Mapping[str, str] = field(repr=False)  # keys are among them
    folder: Path
    root: Path
    keywords: bool = False
    tree: str | None = field(default=None, repr=False)
    write_all: bool = False
    write_new: bool = False

    @property
    def task(self) -> Task | None:
        """What the task file says, None if none is named; `VlmEvalError`."""
        given = self._plain(BY_NAME["config"])
        if given is None and self.tree is None:
            return None
        from pytest_vlmeval.settings.task_file import load_mapping, load_task

        chosen = self.command(BY_NAME["model"])
        if given is None or self.tree is not None:
            return load_mapping(str(self.tree), chosen, self.folder)
        named: Path = self.parse(BY_NAME["config"], given)
        path = self._base(given) / named.expanduser()
        return load_task(path, chosen, self.folder)

    def all(self, option: Option) -> Iterator[Given]:
        """Yield every place that has an option, the one that counts first."""
        task = None if option.name == "config" else self.task
        text = self.command(option)
        # It may choose among the models of the file, by a name of its own there.
        choosing = option.name == "model" and task is not None and task.chosen
        if text is not None and not choosing:
            yield self._on_command(option, text)
        value = task.values.get(option.name) if task is not None else None
        if value is not None and not value.assumed:
            yield Given(value.text, "task", value.shown)
        if (given := self._in_ini(option)) is not None:
            yield given
        if text := self.variables.get(option.env):
            yield _in_environment(option, joined(option, [text], self.folder))
        if value is not None and value.assumed:
            yield Given(value.text, "task", value.shown, assumed=True)

    def find(self, option: Option) -> Given | None:
        """Return where an option is given; None if it is not."""
        if option.name == "config":
            return self._plain(option)
        return next(self.all(option), None)

    def _plain(self, option: Option) -> Given | None:
        """Look where no task file is needed to know."""
        text = self.command(option)
        if text is not None:
            return self._on_command(option, text)
        if (given := self._in_ini(option)) is not None:
            return given
        text = self.variables.get(option.env)
        return _in_environment(option, text) if text else None

    def _on_command(self, option: Option, text: str) -> Given:
        shown = f"{self.name_of(option)}={option.show(text)}"
        return Given(text, "command", shown)

    def _in_ini(self, option: Option) -> Given | None:
        """Look in the ini file, where a TOML file may have a value of another type."""
        value = self.ini.get(option.ini)
        if value in (None, "", []):
            return None
        if isinstance(value, str):
            text, fits = joined(option, [value], self.root), True
        elif isinstance(value, list):
            text = joined(option, [str(each) for each in value], self.root)
            fits = option.several and all(isinstance(each, str) for each in value)
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            fits = _is_value(option, text, value)
        shown = f"{option.ini} = {option.show(text)} in the ini file"
        return Given(text, "ini", shown, mistyped=not fits)

    def _base(self, given: Given) -> Path:
        return self.root if given.place == "ini" else self.folder

    def base_of(self, name: str) -> Path:
        """Return where the paths in an option's value start from."""
        given = self.find(BY_NAME[name])
        return self.folder if given is None else self._base(given)

    def name_of(self, option: Option) -> str:
        """Return what an option is called where it is given."""
        return option.name.replace("-", "_") if self.keywords else option.flag

    def value(self, option: Option) -> Any:
        """Return an option's value; `VlmEvalError` for a text that is not accepted."""
        given = self.find(option)
        if given is None:
            return None if option.default is None else option.parse(option.default)
        return self.parse(option, given)

    def parse(self, option: Option, given: Given) -> Any:
        """Read the text of an option; `VlmEvalError` for what is not accepted."""
        try:
            if given.mistyped:
                raise ValueError
            return option.parse(given.text)
        except ValueError:
            raise VlmEvalError(
                f"{hide_password(given.shown)} is not accepted: "
                f"{self.name_of(option)} takes {option.accepts}."
            ) from None

    def disagreements(self) -> tuple[str, ...]:
        """Describe where the task file and another place say different things."""
        found = []
        for option in OPTIONS:
            places = list(self.all(option)) if self.task else []
            if "task" not in [each.place for each in places]:
                continue
            first, *others = places
            value = self.parse(option, first)
            found += [
                f"{hide_password(first.shown)} counts, not {hide_password(other.shown)}"
                for other in others
                if "task" in (first.place, other.place)
                and not other.assumed
                and self.parse(option, other) != value
            ]
        return (*found, *self._key_disagreements())

    def _key_disagreements(self) -> Iterator[str]:
        task = self.task
        for name, key in task.keys.items() if task else ():
            variable = "VLM_" + name.replace("-", "_").upper()
            where = f"the key in {task.path}" if task else ""
            if self.command(BY_NAME[f"{name}-file"]) is not None:
                yield f"--vlm-{name}-file counts, not {where}"
            elif self.variables.get(variable, key) != key:
                yield f"{where} counts, not {variable}"

    def explain(self, message: str) -> str:
        """Add to an error which of the options in it the task file gives."""
        task = self.task
        if task is None:
            return message
        given = [
            f"{BY_NAME[name].flag} ({value.field})"
            for name, value in task.values.items()
            if f"{BY_NAME[name].flag}" in message.replace("=", " ").split()
        ]
        if not given:
            return message
        return f"{message} {task.path} gives {', '.join(given)}."

    def api_key(self, name: str, file: Path | None) -> str | None:
        """Read a key: the file of --vlm-NAME-file, or the variable VLM_NAME.

        That of the task file counts as an option in it does.
        """
        variable = "VLM_" + name.replace("-", "_").upper()
        task = self.task
        in_task = task.keys.get(name) if task else None
        if in_task and self.command(BY_NAME[f"{name}-file"]) is None:
            return in_task
        if file is None:
            key = self.variables.get(variable)
            return ApiKey(key) if key else None
        return read_key(file, f"--vlm-{name}-file={file}", variable)


def _is_value(option: Option, text: str, value: object) -> bool:
    """Return whether the text of a number, true or false is read as such."""
    try:
        return bool(option.parse(text) == value)
    except ValueError:
        return False


def _in_environment(option: Option, text: str) -> Given:
    return Given(text, "environment", f"{option.env}={option.show(text)}")


def read_key(file: Path, given: str, variable: str) -> ApiKey:
    """Read the key that a file holds; `given` is how it was named in `VlmEvalError`."""
    try:
        key = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = "not a text in UTF-8"
        if not isinstance(error, UnicodeDecodeError):
            reason = getattr(error, "strerror", None) or "not a path"
        raise VlmEvalError(
            f"{_name_only(given, file)} cannot be read ({reason}). Give a readable "
            f"text file that holds only the key, or set {variable}."
        ) from None
    if not key:
        raise VlmEvalError(
            f"{given} is empty. Give a file that holds the key, or set {variable}."
        )
    return ApiKey(key)


def _name_only(given: str, file: Path) -> str:
    """Leave out what may be the key itself, given where its file belongs."""
    if len(file.parts) > 1 and file.expanduser().parent.is_dir():
        return given
    return f"{given.partition('=')[0]}=***"


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


def pytest_sources(config: pytest.Config, variables: Mapping[str, str]) -> Sources:
    """Return what pytest was given."""

    def command(option: Option) -> str | None:
        value = config.getoption(option.flag)
        if isinstance(value, list):
            return joined(option, value, config.invocation_params.dir)
        if value is not None:
            return str(value)
        return overrides.get(option.ini)

    # By -o NAME=VALUE a flag of the task file can be taken back on the command line.
    overrides = dict(
        text.split("=", 1)
        for text in config.getoption("override_ini") or ()
        if "=" in text
    )
    return Sources(
        command=command,
        ini=_ini_values(config.inipath),
        variables=variables,
        folder=config.invocation_params.dir,
        root=config.rootpath,
        write_all=config.getoption("update_snapshots", False),
        write_new=config.getoption("update_new_snapshots_only", False),
    )


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
        from pytest_vlmeval.settings.task_fields import write_mapping

        tree = write_mapping(config)
        del given["config"]
    texts = {_option(name).name: _text(name, value) for name, value in given.items()}
    root, file, *_ = determine_setup(
        inifile=None,
        override_ini=None,
        args=[],
        rootdir_cmd_arg=None,
        invocation_dir=folder,
    )
    return Sources(
        command=lambda option: texts.get(option.name),
        ini=_ini_values(file),
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
    question = did_you_mean(keyword, BY_KEYWORD, most=1)
    raise VlmEvalError(
        f"evaluate() has no keyword {keyword}.{question} Its keywords are the options "
        "of `pytest --help` without --vlm-, with _ for -."
    )


def _text(keyword: str, value: object) -> str:
    """Return a value as it would stand on the command line."""
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
