"""The workflows of a starter project run as their CI runs them, without its actions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documentation import ROOT, block, read, run_shell
from tests.support.run_fixtures import CACHE_DIR, Project, choice_rows, write_table
from tests.support.server_fixtures import ServerProcess

INSTALL = re.compile(r"^(python -m )?pip install pytest-vlmeval$", re.MULTILINE)
USES = ["gates", "other-samples", "baselines"]
# Of each dataset; the workflows take ten times as many.
SAMPLES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a job did: its exit status, what it printed, the variables of its steps."""

    status: int
    output: str
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CI:
    """A runner whose job has the project's variables, and who starts it for a use."""

    name: str
    folder: Path
    variables: Mapping[str, str]
    run: Callable[[CI, str], Job]
    # The files that the job keeps whatever happened, and what it has cached.
    artifacts: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)


def fill(text: object, known: Mapping[str, str]) -> str:
    """Replace the expressions of GitHub; a KeyError names one that nothing sets."""
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known[match[1]], str(text))


def github_workflow(folder: Path) -> dict[Any, Any]:
    """Return the workflow that GitHub finds in a repository."""
    text = read(folder / ".github/workflows/evaluation.yml")
    workflow: dict[Any, Any] = yaml.safe_load(text)
    return workflow


def run_github(ci: CI, use: str) -> Job:
    """Run the commands of a workflow's job, up to the first that fails."""
    workflow = github_workflow(ci.folder)
    job = workflow["jobs"]["evaluate"]
    (chosen,) = re.findall(r"inputs\.evaluate [^}]+(?= \}\})", job["env"]["EVALUATE"])
    known = {
        "github.workspace": str(ci.folder),
        "github.run_id": "1234",
        "github.run_attempt": "1",
        "hashFiles('benchmarks/**/*.py')": "abcd",
        "steps.python.outputs.python-version": "3.12.1",
        **{f"vars.{name}": value for name, value in ci.variables.items()},
        "secrets.VLM_API_KEY": "",
        chosen: use,
    }
    written = ci.folder / "output"
    written.touch()
    environ = {name: fill(value, known) for name, value in job["env"].items()}
    environ["VLM_SAMPLE"] = str(SAMPLES)
    environ["GITHUB_OUTPUT"] = str(written)
    environ["GITHUB_STEP_SUMMARY"] = str(ci.folder / "summary.md")
    output = ""
    status = 0
    for step in job["steps"]:
        if step.get("if", "always()") in {"always()", f"env.EVALUATE == '{use}'"}:
            code = INSTALL.sub("", fill(step.get("run", ""), known))
            done = run_shell(f"set -e\n{code}", ci.folder, environ)
            output += done.stdout
            status = status or done.returncode
        if "id" in step:
            lines = written.read_text().splitlines()
            for name, _, value in (line.partition("=") for line in lines):
                known[f"steps.{step['id']}.outputs.{name}"] = value
            written.write_text("")
            # Every key is made of what is known by then; its action gives it on.
            if key := step.get("with", {}).get("key"):
                name = f"steps.{step['id']}.outputs.cache-primary-key"
                known[name] = fill(key, known)
        if status:
            break
    written.unlink()
    return Job(status=status, output=output, known=known)


def gitlab_job(folder: Path) -> dict[str, Any]:
    """Return the job of a project's pipeline."""
    pipeline: dict[str, Any] = yaml.safe_load(read(folder / ".gitlab-ci.yml"))
    job: dict[str, Any] = pipeline["evaluation"]
    return job


def run_gitlab(ci: CI, use: str) -> Job:
    """Run the script of the job in one shell, up to the first line that fails."""
    job = gitlab_job(ci.folder)
    environ = {
        name: value.replace("$CI_PROJECT_DIR", str(ci.folder))
        for name, value in job["variables"].items()
    }
    code = "\n".join(["set -eo pipefail", *job["script"]])
    environ = {**environ, **ci.variables, "VLM_API_KEY": "", "EVALUATE": use}
    environ["VLM_SAMPLE"] = str(SAMPLES)
    done = run_shell(INSTALL.sub("", code), ci.folder, environ)
    return Job(status=done.returncode, output=done.stdout, known={})


@pytest.fixture(params=["github", "gitlab"])
def ci(
    request: pytest.FixtureRequest,
    project: Project,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> CI:
    """Give a project that `--vlm-init` wrote, and its data where a cache has them."""
    for name in ("PYTEST_ADDOPTS", "VLM_ALLOW_MISSING_BASELINE", "VLM_REUSE"):
        monkeypatch.delenv(name)
    folder = project.pytester.path
    written = project.run(f"--vlm-init={request.param}")
    assert written.ret == 0
    # The rows are invented.
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    for name, count in (("MMStar", SAMPLES + 30), ("RealWorldQA", 10)):
        rows = list(choice_rows(name, count))
        write_table(folder / f".cache/LMUData/{name}.tsv", rows)
    variables = {"VLM_MODEL": "tiny-vlm", "VLM_API_BASE": server.url}
    if request.param == "gitlab":
        job = gitlab_job(folder)
        return CI(
            name="gitlab",
            folder=folder,
            variables=variables,
            run=run_gitlab,
            artifacts=job["artifacts"]["paths"],
            cached=[path for each in job["cache"] for path in each["paths"]],
        )
    steps = github_workflow(folder)["jobs"]["evaluate"]["steps"]
    paths: dict[str, list[str]] = {"upload-artifact": [], "cache/save": []}
    for step in steps:
        action = step.get("uses", "").partition("@")[0].removeprefix("actions/")
        if action in paths:
            paths[action] += step["with"]["path"].split()
    return CI(
        name="github",
        folder=folder,
        variables=variables,
        run=run_github,
        artifacts=paths["upload-artifact"],
        cached=paths["cache/save"],
    )


def evaluate(ci: CI, use: str) -> Job:
    """Run the job on a runner that has the cached data, and no answers."""
    shutil.rmtree(ci.folder / ".vlmeval", ignore_errors=True)
    return ci.run(ci, use)


def asked(server: ServerProcess) -> list[str]:
    """Return the questions of datasets that a server was asked."""
    texts = [str(each["text"]) for each in server.requests()]
    return [text for text in texts if "Question <" in text]


@pytest.mark.slow
def test_each_use_of_a_workflow(ci: CI, server: ServerProcess) -> None:
    server.control(default="B")
    first = evaluate(ci, "gates")
    assert first.status == 1
    assert "--snapshot-update" in first.output

    server.control(default="B")
    baselines = evaluate(ci, "baselines")
    assert baselines.status == 0, baselines.output
    assert "2 snapshots generated." in baselines.output
    assert "2 snapshots passed." in baselines.output
    assert (ci.folder / "benchmarks/__baselines__/tiny-vlm/MMStar.json").is_file()
    assert len(asked(server)) == 2 * (SAMPLES + 10)
    its_samples = {*asked(server)}

    server.control(default="B")
    gates = evaluate(ci, "gates")
    assert gates.status == 0, gates.output
    assert {*asked(server)} == its_samples
    for path in ci.artifacts:
        assert (ci.folder / path).exists(), path
    for path in ci.cached:
        # Where tests have the environment in which answers are scored.
        beside = CACHE_DIR if path.rstrip("/").endswith("/sandbox") else ci.folder
        name = (
            path.removeprefix(".cache/pytest-vlmeval/") if beside is CACHE_DIR else path
        )
        assert (beside / name).exists(), path

    server.control(default="B")
    others = evaluate(ci, "other-samples")
    assert others.status == 0, others.output
    assert "snapshot" not in others.output
    assert {*asked(server)} != its_samples

    server.control(default="C")
    worse = evaluate(ci, "gates")
    assert worse.status == 1
    assert "MMStar is worse than its baseline." in worse.output
    assert "is worse than its baseline" in read(ci.folder / "report.xml")
    if ci.name == "github":
        assert "MMStar" in read(ci.folder / "summary.md")

    # "Re-run jobs" and "Retry" find the answers of the first attempt.
    server.control(default="C")
    retried = ci.run(ci, "gates")
    assert retried.status == 1
    assert "MMStar is worse than its baseline." in retried.output
    assert len(asked(server)) <= 2 * 16


def test_the_uses_are_the_same_in_both() -> None:
    text = read(ROOT / "benchmarks/github-workflow.yml")
    workflow = yaml.safe_load(text)
    # YAML 1.1 takes the key `on` for a truth value.
    triggers = workflow[True]
    assert triggers["workflow_dispatch"]["inputs"]["evaluate"]["options"] == USES
    steps = workflow["jobs"]["evaluate"]["steps"]
    named = [
        re.findall(r"^env\.EVALUATE == '(.+)'$", each.get("if", "")) for each in steps
    ]
    assert [use for uses in named for use in uses] == USES
    environ = workflow["jobs"]["evaluate"]["env"]
    (cron,) = re.findall(r"schedule == '(.+?)'", environ["EVALUATE"])
    assert {"cron": cron} in triggers["schedule"]
    pipeline = yaml.safe_load(read(ROOT / "benchmarks/gitlab-ci.yml"))
    assert pipeline["variables"]["EVALUATE"]["options"] == USES
    job = pipeline["evaluation"]
    (script,) = (line for line in job["script"] if "case" in line)
    assert re.findall(r"^  ([\w-]+)\)$", script, re.MULTILINE) == USES
    for name in ("VLM_SAMPLE", "VLM_FDR", "VLM_REPORT"):
        assert job["variables"][name] == str(environ[name])
    assert int(environ["VLM_SAMPLE"]) == 10 * SAMPLES


def test_a_workflow_installs_as_the_tutorial_does() -> None:
    """Which the test of the tutorial runs, in an environment of its own."""
    installs = block(read(ROOT / "docs/tutorial.md"), "Install")
    assert "python -m pip install pytest-vlmeval\n" in installs
    pipeline = yaml.safe_load(read(ROOT / "benchmarks/gitlab-ci.yml"))
    workflow = yaml.safe_load(read(ROOT / "benchmarks/github-workflow.yml"))
    steps = workflow["jobs"]["evaluate"]["steps"]
    for lines in (
        pipeline["evaluation"]["script"],
        [each["run"] for each in steps if each.get("id") == "installed"],
    ):
        assert len(INSTALL.findall("\n".join(lines))) == 1


def test_an_unknown_ci(project: Project) -> None:
    result = project.run("--vlm-init=jenkins")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --vlm-init: invalid choice: 'jenkins' *"])
    assert not list(project.pytester.path.glob("benchmarks"))
