"""Sessions over datasets that only list, prepare and run: asked, and not scored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.sandbox.environment import HUB, VIDEO, SandboxEnvironment
from tests.support.hub_server import HubServer
from tests.support.hub_sets import REPOSITORIES
from tests.support.invented_tables import invented_table
from tests.support.run_fixtures import CACHE_DIR, Project, endpoint, environment_with
from tests.support.server_fixtures import ServerProcess
from tests.support.video_layouts import repositories

pytestmark = pytest.mark.addons

NAMED = Path(__file__).parents[2] / "benchmarks" / "test_named.py"
# An image on a hub, a text in a table, a video on a hub: an environment for each.
CLASSES = {"SCAM": "SCAM", "XSTest": "XSTestDataset", "Video-TT": "VideoTT"}

# There is nothing that a baseline is of.
OUTCOMES = {"passed": 5, "skipped": 3, "deselected": 1}


@pytest.fixture
def others(
    project: Project,
    hub_environment: HubServer,
    sandbox_environment: SandboxEnvironment,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Give a project whose environments are found by what datasets need."""
    hub_environment.repositories |= {
        "BLISS-e-V/SCAM": REPOSITORIES["BLISS-e-V/SCAM"],
        "lmms-lab/video-tt": repositories()["lmms-lab/video-tt"],
    }
    for addons in (HUB, VIDEO):
        environment_with(addons)
    cache = project.pytester.mkdir("cache")
    (cache / "sandbox").symlink_to(CACHE_DIR / "sandbox")
    monkeypatch.setenv("VLM_CACHE_DIR", str(cache))
    monkeypatch.delenv("VLM_SANDBOX_PYTHON")
    monkeypatch.setenv("VLMEVALKIT_USE_MODELSCOPE", "0")
    info = load_catalog(sandbox_environment, cache)["XSTest"]
    invented_table(info, project.data_root)
    shutil.copy(NAMED, project.pytester.path)
    return project


def test_they_are_asked_once_and_not_scored(
    others: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    arguments = [*endpoint(server.url), f"--vlm-data={','.join(CLASSES)}", "-rs"]
    arguments.append("--vlm-mode=infer")
    result = others.run(*arguments, timeout_s=300)
    # Two images, two texts, one video; and a score item for each dataset.
    assert result.parseoutcomes() == OUTCOMES
    assert result.ret == pytest.ExitCode.OK
    output = result.stdout.str()
    for name, class_name in CLASSES.items():
        assert (
            f"{name} cannot be scored: the scoring of ms-vlmeval's {class_name} cannot "
            "be used here yet"
        ) in output
    result.stdout.fnmatch_lines(
        [
            "SCAM * 2 * 2 * - *no score: the scoring of ms-vlmeval's *",
            "XSTest * 2 * 2 * - *no score: the scoring of ms-vlmeval's *",
            "Video-TT * 1 * 1 * - *no score: the scoring of ms-vlmeval's *",
        ]
    )
    orders = [each["order"] for each in server.requests()]
    assert orders.count(["text"]) == 2
    assert orders.count(["image_url", "text"]) == 2
    # Eight frames, then two texts.
    assert orders.count(["image_url"] * 8 + ["text"] * 2) == 1
    # A second session asks neither the hub nor the model.
    hub_environment.requests.clear()
    again = others.run(*arguments, timeout_s=300)
    assert again.ret == pytest.ExitCode.OK
    assert again.parseoutcomes() == OUTCOMES
    assert len(server.requests()) == 5
    assert not hub_environment.requests
