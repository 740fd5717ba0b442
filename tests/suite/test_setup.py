"""`--vlm-setup` builds what messages say that it builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.sandbox.environment import LIGHT
from tests.support.run_fixtures import Project, environment_with

BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestBoth(Benchmark):
    datasets = ["MathVision_MINI", "VCR_EN_EASY_100"]
"""


@pytest.fixture
def offline(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache with the light environment, in a project without one of its own."""
    light = environment_with(LIGHT).python.parents[1]
    cache = project.pytester.mkdir("cache")
    (cache / "sandbox").mkdir()
    (cache / "sandbox" / light.name).symlink_to(light)
    monkeypatch.setenv("VLM_CACHE_DIR", str(cache))
    monkeypatch.delenv("VLM_SANDBOX_PYTHON")
    return cache


def test_a_setup_builds_the_add_ons_of_the_datasets_that_are_named(
    project: Project, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of the message that VCR's environment is not built yet."""
    project.pytester.makepyfile(test_both=BENCHMARK)
    addon = environment_with(frozenset({"vcr"})).python.parents[1]
    by_data = ["--vlm-data=VCR_EN_EASY_100"]
    refused = project.run("--vlm-setup", *by_data, "--vlm-offline")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        f"is not built yet ({offline}/sandbox/{addon.name}), and --vlm-offline forbids "
        "downloading it. Build it once while online by the same command with "
        "--vlm-setup and without --vlm-offline"
    ) in refused.stderr.str()
    # What is there once it is built, by whatever installer.
    (offline / "sandbox" / addon.name).symlink_to(addon)
    ready = f"{offline}/sandbox/{addon.name}/bin/python (VCR_EN_EASY_100)"
    for given in (by_data, ["test_both.py", "-n", "2"], [".", "-k", "VCR_EN_EASY_100"]):
        result = project.run("--vlm-setup", *given, "--vlm-offline")
        assert result.ret == pytest.ExitCode.OK, given
        assert f"vlmeval: sandbox environment ready: {ready}" in result.outlines
    alone = project.run("--vlm-setup", "--vlm-offline")
    assert "VCR_EN_EASY_100" not in alone.stdout.str()
    assert len(alone.outlines) == 1


def test_an_environment_that_does_not_work_is_built_anew(
    project: Project, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of a sandbox that cannot be started."""
    (works,) = (offline / "sandbox").iterdir()
    good = works.resolve()
    works.unlink()
    broken = works / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    kept = project.run("--vlm-setup", "--vlm-offline")
    assert kept.ret == pytest.ExitCode.USAGE_ERROR
    assert broken.exists()
    # Nothing can be installed without an index, which shows that it is tried.
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(name, "1")
    result = project.run("--vlm-setup")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stdout.str()
    assert "no such module" in told
    assert "It is built anew." in told
    assert "Building the sandbox environment for ms-vlmeval in" in told
    assert not broken.exists()
    works.symlink_to(good)
    again = project.run("--vlm-setup", "--vlm-offline")
    assert again.outlines == [f"sandbox environment ready: {works}/bin/python"]
