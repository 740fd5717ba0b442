"""The README tells the truth: its options, modules, files and example exist and run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.command_table import COMMANDS
from pytest_vlmeval.option_table import OPTIONS
from tests.run_fixtures import Project
from tests.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_options_exist() -> None:
    known = {option.flag for option in OPTIONS} | set(COMMANDS)
    assert set(re.findall(r"--vlm-[a-z-]+", README)) <= known


def test_environment_variables_exist() -> None:
    known = {option.env for option in OPTIONS} | {"VLM_API_KEY", "VLM_JUDGE_API_KEY"}
    assert set(re.findall(r"VLM_[A-Z_]+", README)) <= known


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", README)))
)
def test_files_exist(path: str) -> None:
    places = [ROOT, *(ROOT / "pytest_vlmeval").rglob("*/"), ROOT / "pytest_vlmeval"]
    assert any((place / path).exists() for place in places)


def test_all_parts_are_in_the_architecture() -> None:
    table = README.partition("## Architecture")[2]
    for path in (ROOT / "pytest_vlmeval").iterdir():
        part = path.name if path.suffix == ".py" else f"{path.name}/"
        if part not in {"__init__.py", "py.typed/", "demo/", "__pycache__/"}:
            assert f"`{part}`" in table, part


def test_commands_name_benchmarks_that_exist() -> None:
    for path in re.findall(r"benchmarks/\w+\.py", README):
        assert (ROOT / path).is_file()


def test_the_example_runs(project: Project, server: ServerProcess) -> None:
    example = README.partition("```python\n")[2].partition("```")[0]
    project.write_math(4)
    (project.pytester.path / "test_math.py").write_text(example, encoding="utf-8")
    server.control(default="B")
    result = project.ask(server.url)
    # Half of the free answers are wrong, all options right; brevity and score hold.
    result.assert_outcomes(passed=2 + 1 + 4 + 1, xfailed=2)


def test_the_example_of_a_judge_runs(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    example = README.split("```python\n")[2].partition("```")[0]
    (project.pytester.path / "test_own.py").write_text(example, encoding="utf-8")
    judge = vlm_server(
        models=["judge"],
        answers={"Score": '{"score": 5}', "English": '{"verdict": "yes"}'},
        default='{"choice": "B"}',
    )
    result = project.run(
        "--vlm-judge=judge", f"--vlm-judge-api-base={judge.url}/chat/completions"
    )
    result.assert_outcomes(passed=1)
