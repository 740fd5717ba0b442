"""What is told of Ray before any of it is started."""

from __future__ import annotations

import importlib.util

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.cluster import connect
from pytest_vlmeval.settings.groups import ClusterSettings
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project


def test_the_cluster_is_that_of_the_environment(load: Load) -> None:
    assert load().cluster is None
    there = load("--vlm-engine=ray", environ={"RAY_ADDRESS": "head:6379"}).cluster
    assert there == ClusterSettings(address="head:6379", replicas=None)
    started = load("--vlm-engine=ray", "--vlm-replicas=3").cluster
    assert started == ClusterSettings(address=None, replicas=3)
    auto = load("--vlm-engine=ray", "--vlm-replicas=auto").cluster
    assert auto == ClusterSettings(address=None, replicas=None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ["--vlm-replicas=3"],
            "--vlm-replicas=3 is about the processes of a Ray cluster. Give "
            "--vlm-engine=ray too, or leave it out: without Ray each of xdist's "
            "workers (-n) has a replica.",
        ),
        (
            ["--vlm-engine=ray", "--vlm-serve=vllm serve x --port {port}"],
            "--vlm-serve and --vlm-engine=ray exclude each other: a server of this run "
            "is reached from this machine alone. Start it beforehand and give its URL "
            "with --vlm-api-base, or leave --vlm-engine out.",
        ),
        (
            ["--vlm-replicas=0"],
            "--vlm-replicas=0 is not accepted: --vlm-replicas takes a whole number of "
            "at least 1 (replicas), or auto.",
        ),
    ],
)
def test_options_that_exclude_each_other(
    load: Load, given: list[str], text: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        load(*given)
    assert str(caught.value) == text


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="Ray is installed here"
)
def test_what_to_install_is_told() -> None:
    with pytest.raises(VlmEvalError) as caught:
        connect(None)
    assert str(caught.value) == (
        "--vlm-engine=ray needs Ray, which is not installed. Run pip install "
        "'pytest-vlmeval[ray]', on every node of the cluster."
    )


@pytest.mark.slow
def test_workers_of_xdist_are_refused(project: Project) -> None:
    project.write_math(2)
    arguments = ["--vlm-model=demo", "--vlm-engine=ray", "--vlm-allow-modified-data"]
    result = project.run(*arguments, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-engine=ray and -n exclude each other: one process hands the "
            "samples to all replicas. Leave -n out, or give -n 0; --vlm-replicas says "
            "how many there are."
        ]
    )
    if importlib.util.find_spec("ray") is None:
        for alone in ([], ["-n", "0"]):
            result = project.run(*arguments, *alone)
            result.stderr.fnmatch_lines(["ERROR: --vlm-engine=ray needs Ray, which *"])
