"""The only reader of command line, ini file and environment: one frozen `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import (
    BaselineSettings,
    RequestForm,
    check_key,
    choose_cluster,
    choose_form,
    choose_gates,
    choose_hubs,
    choose_local,
    choose_prompting,
    choose_serving,
    read_headers,
    split_body,
)
from pytest_vlmeval.settings.option import (
    ApiKey,
    Backend,
    check_together,
    choose_backend,
    fields_of,
    is_table,
)
from pytest_vlmeval.settings.presets import fill_in
from pytest_vlmeval.settings.sources import BY_NAME, Sources, pytest_sources
from pytest_vlmeval.settings.table import OPTIONS, add_commands
from pytest_vlmeval.settings.table import Settings as Settings

if TYPE_CHECKING:
    import pytest


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
        if option.is_flag:
            group.addoption(
                option.flag, action="store_const", const="yes", default=None, help=text
            )
        else:
            group.addoption(
                option.flag,
                action="append" if option.several else "store",
                default=None,
                metavar=option.metavar,
                help=text,
            )
        parser.addini(option.ini, f"default of {option.flag}", default=None)
    add_commands(group)


def session_sources(config: pytest.Config) -> Sources:
    """Return all that a session was given, the environment included."""
    return pytest_sources(config, os.environ)


def load_settings(
    config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read all options once; raise `VlmEvalError` for a value that is not accepted."""
    return load_from(pytest_sources(config, environ))


def environment() -> Mapping[str, str]:
    """Return the variables of the environment, for who is called without pytest."""
    return dict(os.environ)


def load_from(sources: Sources) -> Settings:
    """Read all options once from where they may be given; raises `VlmEvalError`."""
    values = {option.name: sources.value(option) for option in OPTIONS}
    try:
        return _make_settings(values, sources)
    except VlmEvalError as error:
        raise VlmEvalError(sources.explain(str(error))) from None


def _make_settings(values: Mapping[str, Any], sources: Sources) -> Settings:
    environ = sources.variables
    task = sources.task
    backend = choose_backend(values["backend"], values["model"])
    values = fill_in(_check_preset(values, backend, sources), sources)
    values, form = _request_form(values, sources)
    check_together(values, backend)
    api_key = sources.api_key("api-key", values["api-key-file"])
    check_key(api_key, form.headers)
    values = {**values, "backend": backend}
    return Settings(
        **fields_of(OPTIONS, values),
        api_key=api_key,
        form=form,
        serving=choose_serving(
            values,
            environ.get("CUDA_VISIBLE_DEVICES"),
            api_base_given=sources.find(BY_NAME["api-base"]) is not None,
        ),
        prompting=choose_prompting(values, backend),
        local=choose_local(values, backend, environ.get("CUDA_VISIBLE_DEVICES")),
        cluster=choose_cluster(values, environ.get("RAY_ADDRESS")),
        **_judges(values, sources),
        data=_data(values["data"] or (), sources.base_of("data")),
        classes={} if task is None else task.classes,
        remarks=() if task is None else (*task.remarks, *sources.disagreements()),
        report=_path(values["report"], sources.folder),
        export=_path(values["export"], sources.folder),
        work_dir=(sources.root / values["work-dir"].expanduser()).absolute(),
        cache_dir=_cache_dir(values["cache-dir"], environ),
        data_root=_data_root(environ),
        hubs=choose_hubs(environ),
        baselines=BaselineSettings(
            **fields_of(OPTIONS, values, "baselines"),
            project=sources.root,
            # As syrupy's own options say.
            updating="all"
            if sources.write_all
            else "new"
            if sources.write_new
            else "none",
        ),
        gates=choose_gates(values, sources.base_of("thresholds"), environ),
    )


def _path(given: Path | None, folder: Path) -> Path | None:
    return None if given is None else folder / given.expanduser()


def _check_preset(
    values: Mapping[str, Any], backend: Backend, sources: Sources
) -> Mapping[str, Any]:
    """Return the values without a preset that a model without a server cannot have."""
    if backend == "endpoint" or values["preset"] == "none":
        return values
    given = sources.find(BY_NAME["preset"])
    if given is not None and given.assumed:
        return {**values, "preset": "none"}
    raise VlmEvalError(
        f"--vlm-preset={values['preset']} is about requests to a server, and "
        f"--vlm-backend={backend} has none. Leave it out."
    )


def _request_form(
    values: Mapping[str, Any], sources: Sources
) -> tuple[Mapping[str, Any], RequestForm]:
    """Return how the model is asked, and the values with what is left out.

    That null in --vlm-extra-body leaves a member out is the same as its own option.
    """
    _, left_out = split_body(values["extra-body"])
    for name in ("max-tokens", "temperature"):
        member = name.replace("-", "_")
        if member in left_out:
            if sources.find(BY_NAME[name]) is not None and values[name] is not None:
                raise VlmEvalError(
                    f"--vlm-{name}={values[name]:g} and null for {member} in "
                    "--vlm-extra-body exclude each other. Leave one of them out."
                )
            values = {**values, name: None}
        if values[name] is None:
            left_out |= {member}
    headers = _headers("api-header-file", values)
    return values, choose_form(values, left_out, headers)


def _headers(name: str, values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    file = values[name]
    return () if file is None else read_headers(file, f"--vlm-{name}={file}")


def _data(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Make the paths among the names absolute."""
    return tuple(
        str(folder / Path(name).expanduser()) if is_table(name) else name
        for name in names
    )


def _judges(values: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """Return the judges, and what is said of them, as `Settings` has them."""
    from pytest_vlmeval.settings.groups import (
        OPENAI_VARIABLES,
        choose_asking,
        choose_judges,
        describe_judges,
    )

    given = sources.variables
    openai = {name: ApiKey(given.get(name, "").strip()) for name in OPENAI_VARIABLES}
    named = values["judge"] or ()
    judges = choose_judges(
        named,
        # What the run itself starts has no address yet.
        ("",) if values["judge-serve"] else values["judge-api-base"] or (),
        sources.api_key("judge-api-key", values["judge-api-key-file"]),
        openai,
        choose_asking(values, _headers("judge-api-header-file", values)),
    )
    judging = describe_judges(judges, named, openai)
    return {"judges": judges, "judging": judging}


def _cache_dir(given: Path | None, environ: Mapping[str, str]) -> Path:
    if given is not None:
        return given.expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pytest-vlmeval"


def _data_root(environ: Mapping[str, str]) -> Path:
    """Where ms-vlmeval's users keep their data; a folder that is named must exist."""
    named = environ.get("LMUData")
    if not named:
        return Path.home() / "LMUData"
    if not Path(named).is_dir():
        raise VlmEvalError(
            f"LMUData={named} is not a folder. Make it, or point LMUData at the folder "
            "that holds the dataset files (unset, it is ~/LMUData)."
        )
    return Path(named).absolute()
