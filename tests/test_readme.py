"""What the README shows runs, block by block, and both languages say the same."""

from __future__ import annotations

import os
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.documentation import ROOT, block, read, run_shell
from tests.support.hub_files import json_lines, parquet
from tests.support.hub_server import HubServer
from tests.support.hub_server import hub_server as hub_server
from tests.support.languages import differences
from tests.support.model_servers import checkpoint as checkpoint
from tests.support.model_servers import model_environment as model_environment
from tests.support.run_fixtures import Project, math_rows, write_table
from tests.support.server_fixtures import ServerProcess
from tests.support.video_sets import hub_environment as hub_environment

README = read(ROOT / "README.md")


@pytest.fixture
def reader(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a folder with a copy of the benchmarks and one dataset, its model aside."""
    shutil.copytree(ROOT / "benchmarks", project.pytester.path / "benchmarks")
    write_table(project.data_root / "MathVision_MINI.tsv", math_rows(24))
    monkeypatch.delenv("PYTEST_ADDOPTS")
    # What a reader's files would have: the published data, and all of it.
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    monkeypatch.setenv("VLM_DATA", "MathVision_MINI")
    return project


@pytest.fixture
def served(
    reader: Project,
    vlm_server: Callable[..., ServerProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> ServerProcess:
    """Give a server of the README's model, at the address that runs take."""
    server = vlm_server(models=["qwen2-vl"], default="B")
    monkeypatch.setenv("VLM_API_BASE", server.url)
    return server


def test_the_two_commands_are_what_ci_runs() -> None:
    lines = block(README, "Two commands").splitlines()
    named = [re.sub(r"\s+#.*", "", line) for line in lines]
    assert named == ["make demo", "make test"]
    steps = runpy.run_path(str(ROOT / ".ci/steps.py"))
    assert {*named} <= {each.command for each in (*steps["FIRST"], *steps["STEPS"])}


def test_the_command_without_a_checkout_is_that_of_the_wheel_s_test() -> None:
    lines = block(README, "Two commands", number=1).splitlines()
    named = [re.sub(r"\s+#.*", "", line) for line in lines]
    assert named == ["pytest --vlm-model=demo", "pytest --vlm-init"]


@pytest.mark.slow
def test_a_served_model(reader: Project, served: ServerProcess) -> None:
    heading = "A model that swift serves"
    code = block(README, heading, number=1).replace("http://host:8000/v1", served.url)
    output = run_shell(code, reader.pytester.path).stdout
    found = [
        (re.findall(r"(\d+) passed", line), re.findall(r"(\d+) xfailed", line))
        for line in re.findall(r"^=+ .* in [\d.]+s.* =+$", output, re.MULTILINE)
    ]
    # Options, which are right, with a score and a baseline; free answers are wrong.
    everything = (["14"], ["12"])
    assert found == [everything, (["12"], ["10"]), everything, ([], ["1"])]
    # In whichever of these runs, each question was asked once.
    asked = [str(each["text"]) for each in served.requests()]
    assert len([text for text in asked if "Question <" in text]) == 24


def test_a_judge(
    reader: Project, served: ServerProcess, vlm_server: Callable[..., ServerProcess]
) -> None:
    served.control(models=["qwen2-vl"], default="I think it is the second")
    judge = vlm_server(models=["qwen2-7b-instruct"], judge="good")
    code = block(README, "A judge").replace("http://127.0.0.1:8866/v1", judge.url)
    output = run_shell(code, reader.pytester.path).stdout
    assert "judge qwen2-7b-instruct" in output
    assert judge.requests()


@pytest.mark.slow
def test_a_gate(
    reader: Project, served: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = reader.pytester.path
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")
    once, always = block(README, "A gate in CI").splitlines()
    assert run_shell(once, folder).returncode == 0
    assert list((folder / "benchmarks/__baselines__/qwen2-vl").iterdir())
    assert run_shell(always, folder).returncode == 0
    assert (folder / "report.html").is_file()
    served.control(models=["qwen2-vl"], default="C")
    worse = run_shell(always, folder, {"VLM_FRESH": "yes"})
    assert worse.returncode == pytest.ExitCode.TESTS_FAILED
    assert "MathVision_MINI is worse than its baseline." in worse.stdout
    assert "is worse than its baseline" in read(folder / "report.xml")


@pytest.mark.slow
@pytest.mark.usefixtures("served")
def test_own_data(reader: Project, hub_environment: HubServer) -> None:
    folder = reader.pytester.path
    image = ROOT / "docs/images/report.webp"
    rows = [
        {"question": f"Which, {i}?", "answer": answer, "A": "a", "B": "b"}
        for i, answer in enumerate("BBA")
    ]
    rows = [{**row, "image": str(image)} for row in rows]
    table = "\n".join(",".join(row.values()) for row in rows).replace(", ", " ")
    (folder / "my.csv").write_text(f"{','.join(rows[0])}\n{table}\n")
    spoken = [
        [
            {"role": "user", "content": f"<image>{row['question']}"},
            {"role": "assistant", "content": row["answer"]},
        ]
        for row in rows
    ]
    lines = [{"messages": each, "images": [str(image)]} for each in spoken]
    (folder / "train.jsonl").write_bytes(json_lines(lines))
    image_file = {"bytes": image.read_bytes(), "path": None}
    split = parquet([{**row, "image": image_file} for row in rows], "image")
    name = "data/test-00000-of-00001.parquet"
    hub_environment.repositories["OWNER/NAME"] = {name: split}
    output = run_shell(block(README, "Your own data"), folder).stdout
    assert len(re.findall(r"=+ 4 passed,.* 1 xfailed", output)) == 3, output


def test_the_example_runs(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    example = block(README, "Your own data", "python")
    (project.pytester.path / "test_math.py").write_text(example, encoding="utf-8")
    server.control(default="B")
    result = project.ask(server.url)
    # Half of the free answers are wrong, all options right; brevity and score hold.
    result.assert_outcomes(passed=2 + 1 + 4 + 1, xfailed=2)


def test_both_languages_have_the_same_parts() -> None:
    found = list(differences(ROOT / "README.md", read(ROOT / "README.zh-CN.md")))
    assert not found, "\n".join(found)


@pytest.fixture
def environ(
    project: Project, model_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Give what a machine with swift has, and a dataset of a few samples."""
    shutil.copytree(ROOT / "benchmarks", project.pytester.path / "benchmarks")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    programs = str(model_environment / "bin")
    return {
        "PATH": os.pathsep.join(
            [str(ROOT / ".venv/bin"), os.environ["PATH"], programs]
        ),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLM_DATA": "DemoYesNo",
        "VLM_LIMIT": "4",
        "VLM_LOCAL_PYTHON": str(model_environment / "bin/python"),
    }


@pytest.mark.swift
def test_a_model_that_swift_serves(
    project: Project, checkpoint: Path, environ: dict[str, str]
) -> None:
    code = block(README, "A model that swift serves", number=2)
    kind = "--model_type qwen2_vl --template qwen2_vl"
    code = code.replace("Qwen/Qwen2-VL-2B-Instruct", f"{checkpoint} {kind}")
    done = run_shell(code, project.pytester.path, environ)
    assert done.returncode == 0, done.stdout
    assert project.stored("SELECT count(*) FROM answers WHERE state = 'answered'") == [
        (4,)
    ]


@pytest.mark.swift
def test_a_model_that_runs_here(
    project: Project, checkpoint: Path, environ: dict[str, str]
) -> None:
    code = block(README, "A model that runs here").replace("DIR", str(checkpoint))
    done = run_shell(code, project.pytester.path, environ)
    assert done.returncode == 0, done.stdout
    assert project.stored("SELECT count(*) FROM answers WHERE state = 'answered'") == [
        (4,)
    ]
