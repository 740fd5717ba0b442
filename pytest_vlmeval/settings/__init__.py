"""The only reader of command line, ini file and environment: one frozen `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import (
    BaselineSettings,
    ClusterSettings,
    GateSettings,
    LocalModel,
    Prompting,
    RequestForm,
    Serving,
    check_key,
    choose_baselines,
    choose_cluster,
    choose_form,
    choose_gates,
    choose_hubs,
    choose_local,
    choose_prompting,
    choose_serving,
    read_headers,
    report_settings,
    split_body,
)
from pytest_vlmeval.settings.option import (
    ApiKey,
    Backend,
    Option,
    check_together,
    choose_backend,
    hide_password,
    is_table,
)
from pytest_vlmeval.settings.presets import fill_in
from pytest_vlmeval.settings.sources import BY_NAME, Sources, pytest_sources
from pytest_vlmeval.settings.table import OPTIONS, add_commands

if TYPE_CHECKING:
    import pytest

    from pytest_vlmeval.records import Hub, Scoring
    from pytest_vlmeval.settings.groups import JudgeEndpoint

Mode = Literal["all", "infer", "score", "report"]
# Settings that are an option's value as it is.
AS_GIVEN = (
    "model preset limit sample seed nframe fps video_url scoring concurrency repeat "
    "store max_tokens temperature max_reply_mb retries mode fresh reuse spot_check "
    "allow_modified_data offline data_mirror data_paths download_max_gb download_only "
    "sandbox_python media_check"
).split()


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

    @property
    def store_name(self) -> str:
        """What names the store to a reader."""
        return hide_password(self.store) if self.store else str(self.work_dir)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option for the command line and the ini file."""
    group = parser.getgroup(
        "vlmeval",
        "evaluation of vision-language models (each option may also stand in the "
        "ini file as vlm_NAME or in the environment as VLM_NAME)",
    )
    for option in OPTIONS:
        text = option.help if option.default is None else _with_default(option)
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


def _with_default(option: Option) -> str:
    return f"{option.help} (default: {option.default})"


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
    return Settings(
        **{name: values[name.replace("_", "-")] for name in AS_GIVEN},
        backend=backend,
        api_bases=values["api-base"],
        api_key=_api_key("api-key", values["api-key-file"], form, sources),
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
        timeout_s=values["timeout"],
        outage_s=values["outage"],
        score_timeout_s=values["score-timeout"],
        **report_settings(values, sources.folder),
        work_dir=(sources.root / values["work-dir"].expanduser()).absolute(),
        cache_dir=_cache_dir(values["cache-dir"], environ),
        data_root=_data_root(environ),
        hubs=choose_hubs(environ),
        baselines=choose_baselines(
            values,
            sources.root,
            write_all=sources.write_all,
            write_new=sources.write_new,
        ),
        gates=choose_gates(values, sources.base_of("thresholds"), environ),
    )


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


def _api_key(
    name: str, file: Path | None, form: RequestForm, sources: Sources
) -> str | None:
    """Return a key; `VlmEvalError` where a header is in its place."""
    key = sources.api_key(name, file)
    check_key(key, form.headers, judge=name.startswith("judge"))
    return key


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
