"""The only reader of command line, ini file and environment: one frozen `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vlmeval.baseline_settings import BaselineSettings, choose_baselines
from pytest_vlmeval.cluster_settings import ClusterSettings, choose_cluster
from pytest_vlmeval.command_table import add_commands
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gate_settings import GateSettings, choose_gates
from pytest_vlmeval.hub_settings import choose_hubs
from pytest_vlmeval.local_settings import LocalModel, choose_local
from pytest_vlmeval.option import Option
from pytest_vlmeval.option_checks import Backend, check_together, choose_backend
from pytest_vlmeval.option_table import OPTIONS
from pytest_vlmeval.option_values import ApiKey, hide_password, is_table
from pytest_vlmeval.prompt_settings import Prompting, choose_prompting
from pytest_vlmeval.report_options import report_settings
from pytest_vlmeval.serving_settings import Serving, choose_serving

if TYPE_CHECKING:
    import pytest

    from pytest_vlmeval.judge_settings import JudgeEndpoint
    from pytest_vlmeval.records import Hub, Scoring

Mode = Literal["all", "infer", "score", "report"]
# Options that may be given several times.
REPEATED = {"api-base", "data", "judge", "judge-api-base", "model-args"}
# Settings that are an option's value as it is.
AS_GIVEN = (
    "model limit sample seed nframe fps video_url scoring concurrency repeat store "
    "max_tokens temperature retries mode fresh allow_modified_data offline data_mirror "
    "download_max_gb download_only sandbox_python media_check"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run may be told; plain values only.

    `data` holds names and absolute paths of tables. `timeout_s`, `score_timeout_s`:
    seconds for one request, for one scoring; `outage_s` those to wait for endpoints
    that do not answer. `concurrency` is None where it is found out. `api_key` is never
    printed: it is left out of `repr`. `judging` says in words what `judges` there are:
    none means exact matching. `data_root` is where the dataset files lie, `work_dir`
    where the store is unless `store` names a database (its URL may hold a password and
    is never printed as it is), `cache_dir` what can be made again (sandbox environment,
    prepared datasets). `data_mirror` is a URL or a folder; `download_max_gb` counts
    10^9 bytes, `report_max_mb` 10^6. `run` names the stored run that a report is about.
    Of each video `nframe` frames are shown, or `fps` per second, or with `video_url`
    the file; `hubs` are where videos come from, first the one ms-vlmeval prefers.
    """

    model: str | None
    backend: Backend
    api_bases: tuple[str, ...]
    api_key: str | None
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
    scoring: Scoring
    concurrency: int | None
    repeat: int
    max_tokens: int
    temperature: float
    timeout_s: float
    retries: int
    outage_s: float
    mode: Mode
    fresh: bool
    allow_modified_data: bool
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
                action="append" if option.name in REPEATED else "store",
                default=None,
                metavar=option.metavar,
                help=text,
            )
        parser.addini(option.ini, f"default of {option.flag}", default=None)
    add_commands(group)


def _with_default(option: Option) -> str:
    return f"{option.help} (default: {option.default})"


def _given(
    option: Option, config: pytest.Config, environ: Mapping[str, str]
) -> tuple[str, str] | None:
    """Return the raw value and where it was given: command line, ini, environment."""
    value = config.getoption(option.flag)
    if value is not None:
        text = ",".join(value) if isinstance(value, list) else str(value)
        return text, f"{option.flag}={text}"
    value = config.getini(option.ini)
    if value not in (None, ""):
        return str(value), f"{option.ini} = {value} in the ini file"
    if environ.get(option.env):
        return environ[option.env], f"{option.env}={environ[option.env]}"
    return None


def _value(option: Option, config: pytest.Config, environ: Mapping[str, str]) -> Any:
    given = _given(option, config, environ)
    if given is None:
        return None if option.default is None else option.parse(option.default)
    text, source = given
    try:
        return option.parse(text)
    except ValueError:
        raise VlmEvalError(
            f"{hide_password(source)} is not accepted: {option.flag} takes "
            f"{option.accepts}."
        ) from None


def is_given(
    name: str, config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether the option `name` was given anywhere, whatever its value."""
    option = next(option for option in OPTIONS if option.name == name)
    return _given(option, config, environ) is not None


def load_settings(
    config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read all options once; raise `VlmEvalError` for a value that is not accepted."""
    values = {option.name: _value(option, config, environ) for option in OPTIONS}
    backend = choose_backend(values["backend"], values["model"])
    check_together(values, backend)
    return Settings(
        **{name: values[name.replace("_", "-")] for name in AS_GIVEN},
        backend=backend,
        api_bases=values["api-base"],
        api_key=_api_key("api-key", values["api-key-file"], environ),
        serving=choose_serving(
            values,
            environ.get("CUDA_VISIBLE_DEVICES"),
            api_base_given=is_given("api-base", config, environ),
        ),
        prompting=choose_prompting(values, backend),
        local=choose_local(values, backend, environ.get("CUDA_VISIBLE_DEVICES")),
        cluster=choose_cluster(values, environ.get("RAY_ADDRESS")),
        **_judges(values, environ),
        data=_data(values["data"] or (), config),
        timeout_s=values["timeout"],
        outage_s=values["outage"],
        score_timeout_s=values["score-timeout"],
        **report_settings(values, config.invocation_params.dir),
        work_dir=(config.rootpath / values["work-dir"].expanduser()).absolute(),
        cache_dir=_cache_dir(values["cache-dir"], environ),
        data_root=_data_root(environ),
        hubs=choose_hubs(environ),
        baselines=choose_baselines(
            values,
            config.rootpath,
            write_all=config.getoption("update_snapshots", False),
            write_new=config.getoption("update_new_snapshots_only", False),
        ),
        gates=choose_gates(values, _folder("thresholds", config), environ),
    )


def _folder(name: str, config: pytest.Config) -> Path:
    """Return where the paths in an option's value start from."""
    in_ini = config.getoption(f"--vlm-{name}") is None and config.getini(f"vlm_{name}")
    return config.rootpath if in_ini else config.invocation_params.dir


def _data(names: Sequence[str], config: pytest.Config) -> tuple[str, ...]:
    """Make the paths among the names absolute, those of the ini file from its root."""
    folder = _folder("data", config)
    return tuple(
        str(folder / Path(name).expanduser()) if is_table(name) else name
        for name in names
    )


def _judges(values: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the judges, and what is said of them, as `Settings` has them."""
    from pytest_vlmeval.judge_settings import (
        OPENAI_VARIABLES,
        choose_judges,
        describe_judges,
    )

    openai = {name: ApiKey(environ.get(name, "").strip()) for name in OPENAI_VARIABLES}
    named = values["judge"] or ()
    judges = choose_judges(
        named,
        # What the run itself starts has no address yet.
        ("",) if values["judge-serve"] else values["judge-api-base"] or (),
        _api_key("judge-api-key", values["judge-api-key-file"], environ),
        openai,
    )
    judging = describe_judges(judges, named, openai)
    return {"judges": judges, "judging": judging}


def _api_key(name: str, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """Read a key from the file of --vlm-NAME-file, else from VLM_NAME."""
    variable = "VLM_" + name.replace("-", "_").upper()
    if file is None:
        key = environ.get(variable)
        return ApiKey(key) if key else None
    try:
        key = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise VlmEvalError(
            f"--vlm-{name}-file={file} cannot be read ({error}). Give a readable "
            f"text file that holds only the key, or set {variable}."
        ) from None
    if not key:
        raise VlmEvalError(
            f"--vlm-{name}-file={file} is empty. Give a file that holds the key, "
            f"or set {variable}."
        )
    return ApiKey(key)


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
