"""`pytest --vlm-doctor`: what it says of what is well, and of what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.sources import pytest_sources
from pytest_vlmeval.suite import commands
from pytest_vlmeval.suite.commands import (
    Diagnosis,
    examine_judges,
    examine_model,
    write_diagnoses,
)
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

CANARY = "sk-canary-4d1f"
Load = Callable[..., Settings]


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads settings from arguments and the environment."""

    def load(*arguments: str, **environ: str) -> Settings:
        config = pytester.parseconfig(*arguments)
        return load_from(pytest_sources(config, {"HOME": "/nowhere", **environ}))

    return load


def test_a_run_that_would_go_well(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    """The options are those of the run, from a task file too; no sample is asked."""
    server = vlm_server(models=["qwen-vl-chat"], api_key=CANARY)
    judge = vlm_server(models=["qwen3"], api_key=CANARY)
    model = {"api_base": server.url, "key": CANARY}
    task = swift_task(model=model, judge="qwen3", judge_base_url=judge.url)
    task["eval_config"]["judge_key"] = CANARY
    write_task(project.pytester.path / "task.yaml", task)
    result = project.run("--vlm-doctor", "--vlm-config=task.yaml")
    out = result.stdout.str()
    assert result.ret == 0, out
    result.stdout.fnmatch_lines(
        [
            "ok*versions*Python *, pytest-vlmeval *, pytest *, openai *, pandas *",
            f"ok*model*qwen-vl-chat is served at {server.url}",
            f"ok*media*{server.url} takes several images in one prompt",
            f"ok*media*{server.url} takes images",
            f"ok*judge*qwen3 is served at {judge.url}",
            f"ok*data root*{project.data_root}, * GB free",
            "ok*cache*GB free",
            "ok*work dir*.vlmeval, made when first needed, * GB free",
            "*GPU*",
            "ok*sandbox*ms-vlmeval 0.0.20, Python 3.*, pandas *",
            "ok*store*none yet; the first run makes *.vlmeval/store.sqlite",
            "",
            "All is well.",
        ]
    )
    assert CANARY not in out + result.stderr.str()
    assert not project.store.exists()
    assert not judge.requests()


def test_a_run_that_would_not(project: Project) -> None:
    (project.pytester.path / ".vlmeval").mkdir()
    project.store.write_text("no database", encoding="utf-8")
    result = project.run(
        "--vlm-doctor", "--vlm-model=m", "--vlm-api-base=http://127.0.0.1:9/v1"
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "error*model*No server answers at http://127.0.0.1:9/v1*",
            "*swift deploy --model * --served_model_name m --port 9",
            "ok*judge*exact matching (no judge)",
            "error*store*The run store in * cannot be used: file is not a database*",
            "2 errors to fix.",
        ]
    )
    result = project.run("--vlm-doctor", "--vlm-limit=0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["error*options*--vlm-limit=0 is not accepted*", "1 error to fix."]
    )


def model_diagnoses(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the diagnoses of the model, without their remedies."""
    found = asyncio.run(examine_model(settings))
    return [(each.about, each.state, each.text) for each in found]


def test_models_of_every_kind(load: Load, server: ServerProcess) -> None:
    ((about, state, text),) = model_diagnoses(load())
    assert (about, state) == ("model", "note")
    assert text.startswith("No model was named. Give --vlm-model=NAME")
    assert model_diagnoses(load("--vlm-model=demo")) == [("model", "ok", "demo, here")]
    ((_, state, text),) = model_diagnoses(
        load("--vlm-model=other", f"--vlm-api-base={server.url}")
    )
    assert state == "error"
    assert "does not serve 'other'. It serves: tiny-vlm." in text
    for program, state, said in (
        ("sh", "ok", "/sh is started for the run"),
        ("no-such-server", "error", "is to be started for the run, and is not found"),
    ):
        ((_, found, text),) = model_diagnoses(
            load("--vlm-model=m", f"--vlm-serve={program} {{port}}")
        )
        assert (found, text.endswith(said)) == (state, True)


@pytest.mark.parametrize(
    ("rule", "state", "said"),
    [
        (
            {"status": 400, "images": 2},
            "note",
            "refuses several images in one prompt",
        ),
        ({"status": 503}, "error", "gave no answer to images"),
    ],
)
def test_media_that_are_not_taken(
    load: Load, server: ServerProcess, rule: dict[str, object], state: str, said: str
) -> None:
    server.control(rules=[rule])
    settings = load("--vlm-model=tiny-vlm", f"--vlm-api-base={server.url}")
    found = asyncio.run(examine_model(settings))
    media = [each for each in found if each.state != "ok"]
    assert any(each.state == state and said in each.text for each in media), found
    assert all(each.remedy for each in media)


def test_judges(load: Load, server: ServerProcess) -> None:
    settings = load("--vlm-judge=tiny-vlm,other", f"--vlm-judge-api-base={server.url}")
    first, second = asyncio.run(examine_judges(settings))
    assert (first.state, first.text) == ("ok", f"tiny-vlm is served at {server.url}")
    assert second.state == "error"
    assert "Give one of these with --vlm-judge." in second.text


def test_folders(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    settings = load(f"--vlm-cache-dir={file}/in/it", LMUData=str(tmp_path))
    root, cache, _ = commands.examine_folders(settings)
    assert root.state == "ok"
    assert (cache.state, cache.text) == ("error", f"{file}/in/it cannot be written")
    assert cache.remedy == (
        f"Make {file} a folder that you may write to, or give another with "
        "--vlm-cache-dir."
    )
    monkeypatch.setattr(commands, "LEAST_BYTES", 10**18)
    root = next(commands.examine_folders(settings))
    assert root.state == "error"
    assert root.remedy.endswith("free some, or point LMUData at another folder.")
    monkeypatch.undo()
    settings = load(f"--vlm-work-dir={file}/in/it", LMUData=str(tmp_path))
    *_, work = commands.examine_folders(settings)
    assert (work.state, work.text) == ("error", f"{file}/in/it cannot be written")
    assert work.remedy.endswith("or give another with --vlm-work-dir.")
    options = (f"--vlm-cache-dir={tmp_path}/c", f"--vlm-work-dir={tmp_path}/w")
    advised = load(*options, LMUData=str(tmp_path))
    assert [each.state for each in commands.examine_folders(advised)] == ["ok"] * 3


def test_gpus(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = commands.examine_gpus(load(CUDA_VISIBLE_DEVICES=""))
    assert elsewhere.text == "none here, and this model needs none here"
    local = load("--vlm-backend=local", "--vlm-model=m", CUDA_VISIBLE_DEVICES="")
    assert commands.examine_gpus(local).state == "note"
    local = load("--vlm-backend=local", "--vlm-model=m", CUDA_VISIBLE_DEVICES="0,3")
    found = commands.examine_gpus(local)
    assert (found.state, found.text) == ("ok", "2 (0, 3)")


def test_sandboxes(load: Load, tmp_path: Path) -> None:
    found = commands.examine_sandbox(load(f"--vlm-cache-dir={tmp_path}"))
    assert (found.state, found.remedy) == (
        "note",
        "Build it ahead: pytest --vlm-setup",
    )
    assert not list(tmp_path.iterdir())
    found = commands.examine_sandbox(load("--vlm-sandbox-python=/bin/false"))
    assert found.state == "error"
    assert found.text.startswith("--vlm-sandbox-python=/bin/false is not a working Py")


def test_lines_fit_and_are_told_apart_by_colour_where_there_is_any() -> None:
    found = [
        Diagnosis("model", "error", "word " * 40, "Fix it."),
        Diagnosis("store", "ok", "[bold] is text"),
    ]
    plain = write_diagnoses(found, 60, colour=False)
    assert max(map(len, plain)) <= 60
    assert "\x1b" not in "".join(plain)
    assert [line for line in plain if "Fix it." in line]
    assert [line for line in plain if "[bold] is text" in line]
    assert plain[-1] == "1 error to fix."
    coloured = write_diagnoses(found, 60, colour=True)
    assert "\x1b[1;31merror" in "".join(coloured)
    assert json.dumps(plain)
