"""The only reader of command line, ini file and environment: one frozen `Settings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import (
    NONE,
    OPENAI_VARIABLES,
    BaselineSettings,
    ClusterSettings,
    GateSettings,
    JudgeAsking,
    LocalModel,
    Prompting,
    RequestForm,
    Serving,
    choose_hubs,
    choose_judges,
    describe_judges,
    read_headers,
    split_body,
)
from pytest_vlmeval.settings.option import (
    PLACES,
    ApiKey,
    Backend,
    fields_of,
    is_repository,
    is_table,
)
from pytest_vlmeval.settings.presets import fill_in
from pytest_vlmeval.settings.sources import Sources
from pytest_vlmeval.settings.table import BY_NAME, OPTIONS, check_together
from pytest_vlmeval.settings.table import Settings as Settings

NO_MODEL = (
    "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible endpoint "
    "serves it under (see --vlm-api-base), or --vlm-model=demo for the tiny model that "
    "ships with the plugin."
)


def load_from(sources: Sources) -> Settings:
    """Read all options once from where they may be given; raises `VlmEvalError`."""
    values = {option.name: sources.value(option) for option in OPTIONS}
    try:
        return _make_settings(values, sources)
    except VlmEvalError as error:
        raise VlmEvalError(sources.explain(str(error))) from None


def _make_settings(values: dict[str, Any], sources: Sources) -> Settings:
    variables = sources.variables
    task = sources.task
    if values["backend"] == "auto":
        values["backend"] = "demo" if values["model"] == "demo" else "endpoint"
    preset = sources.find(BY_NAME["preset"])
    if values["backend"] == "endpoint":
        values |= fill_in(values, sources)
    elif preset is not None and preset.assumed:
        values["preset"] = NONE
    form = _request_form(values, sources)
    api_key = sources.api_key("api-key", values["api-key-file"])
    form.check_key(api_key)
    values["extra-body"], _ = split_body(values["extra-body"])
    check_together(
        values,
        values["backend"],
        api_base_given=sources.find(BY_NAME["api-base"]) is not None,
    )
    _check_address(values["backend"], sources)
    visible_devices = variables.get("CUDA_VISIBLE_DEVICES")
    cluster = None
    if values["engine"] == "ray":
        replicas = values["replicas"]
        cluster = ClusterSettings(
            address=variables.get("RAY_ADDRESS"),
            replicas=None if replicas == "auto" else replicas,
        )
    thresholds = values["thresholds"]
    summary = variables.get("GITHUB_STEP_SUMMARY")
    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    paths: dict[str, Any] = {
        # The user's own tables among the names of datasets.
        "data": tuple(
            str(sources.path("data", name))
            if is_table(name) and not is_repository(name)
            else name
            for name in values["data"]
        ),
        "work_dir": (sources.root / values["work-dir"].expanduser()).absolute(),
        "cache_dir": (values["cache-dir"] or cache / "pytest-vlmeval")
        .expanduser()
        .absolute(),
    }
    for name in ("report", "export"):
        if (path := values[name]) is not None:
            paths[name] = sources.folder / path.expanduser()
    return Settings(
        **(fields_of(Settings, values) | paths),
        api_key=api_key,
        form=form,
        serving=Serving(**fields_of(Serving, values), visible_devices=visible_devices),
        prompting=Prompting(**fields_of(Prompting, values)),
        local=LocalModel(
            **fields_of(LocalModel, values), visible_devices=visible_devices
        ),
        cluster=cluster,
        **_judges(values, sources),
        classes={} if task is None else task.classes,
        has_task=task is not None,
        remarks=(
            *sources.misspelt(),
            *(() if task is None else task.remarks),
            *sources.disagreements(),
        ),
        data_root=_data_root(variables),
        hubs=choose_hubs(variables),
        baselines=BaselineSettings(
            **fields_of(BaselineSettings, values),
            project=sources.root,
            updating=sources.updating,
        ),
        gates=GateSettings(
            **fields_of(GateSettings, values)
            | {"thresholds": thresholds and sources.path("thresholds", thresholds)},
            # GitHub Actions names the file of a job's summary.
            step_summary=Path(summary) if summary else None,
        ),
    )


def _check_address(backend: Backend, sources: Sources) -> None:
    """Raise `VlmEvalError` for the address of a server where none is asked.

    One that a project has for its other models is no mistake: it is given further away
    than what chooses the model.
    """
    address = sources.find(BY_NAME["api-base"])
    chosen = sources.find(BY_NAME["backend"]) or sources.find(BY_NAME["model"])
    if backend == "endpoint" or address is None or chosen is None:
        return
    if PLACES.index(address.place) > PLACES.index(chosen.place):
        return
    if backend == "demo":
        raise VlmEvalError(
            "--vlm-model=demo is the model that ships with the plugin, and "
            "--vlm-api-base is the address of a server. Leave one of them out, or give "
            "--vlm-backend=endpoint if that server has a model of this name."
        )
    raise VlmEvalError(
        f"--vlm-backend={backend} loads the model on this machine, and --vlm-api-base "
        "is the address of a server. Leave one of them out."
    )


def _request_form(
    values: dict[str, Any], sources: Sources, prefix: str = ""
) -> RequestForm:
    """Return how the model, or with a prefix a judge, is asked.

    That null in --vlm-extra-body leaves a member out is the same as its own option,
    and becomes that here.
    """
    nothing = NONE if prefix else None  # None is a judge's own
    _, left_out = split_body(values[f"{prefix}extra-body"])
    for each in ("max-tokens", "temperature"):
        name, member = prefix + each, each.replace("-", "_")
        if member in left_out:
            given = sources.find(BY_NAME[name]) is not None
            if given and values[name] not in (None, NONE):
                raise VlmEvalError(
                    f"--vlm-{name}={values[name]:g} and null for {member} in "
                    f"--vlm-{prefix}extra-body exclude each other. Leave one of them "
                    "out."
                )
            values[name] = nothing
        elif values[name] == nothing:
            left_out |= {member}
    file = values[f"{prefix}api-header-file"]
    return RequestForm(
        max_tokens_name=values[f"{prefix}max-tokens-name"],
        left_out=left_out,
        query=values[f"{prefix}api-query"],
        headers=read_headers(file, f"--vlm-{prefix}api-header-file={file}")
        if file is not None
        else (),
    )


def _judges(values: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return the judges, and what is said of them, as `Settings` has them."""
    openai = {
        name: ApiKey(sources.variables.get(name, "").strip())
        for name in OPENAI_VARIABLES
    }
    form = _request_form(values, sources, "judge-")
    changes = {
        name.replace("-", "_"): None if value == NONE else value
        for name in ("max-tokens", "temperature")
        if (value := values[f"judge-{name}"]) is not None
    }
    body, _ = split_body(values["judge-extra-body"])
    judges = choose_judges(
        values["judge"],
        # What the run itself starts has no address yet.
        ("",) if values["judge-serve"] else values["judge-api-base"],
        sources.api_key("judge-api-key", values["judge-api-key-file"]),
        openai,
        JudgeAsking(changes=changes, extra_body=body, form=form),
    )
    judging = describe_judges(judges, values["judge"], openai)
    return {"judges": judges, "judging": judging}


def _data_root(variables: Mapping[str, str]) -> Path:
    """Where ms-vlmeval's users keep their data; a folder that is named must exist."""
    named = variables.get("LMUData")
    if not named:
        return Path.home() / "LMUData"
    if not Path(named).is_dir():
        raise VlmEvalError(
            f"LMUData={named} is not a folder. Make it, or point LMUData at the folder "
            "that holds the dataset files (unset, it is ~/LMUData)."
        )
    return Path(named).absolute()
