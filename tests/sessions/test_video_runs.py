"""Sessions over video datasets: hub, prompts, model server, scores, reports."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.hub_server import HubServer
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess
from tests.support.video_sets import MMBENCH_VIDEO, VIDEO_MME, video_mme, videos

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

pytestmark = pytest.mark.addons

MODULE = """
from pytest_vlmeval import Benchmark

class TestVideo(Benchmark):
    datasets = ["Video-MME", "Video-MME_1fps", "MMBench-Video"]
"""
FILMS = videos("one", "two")


@pytest.fixture
def video_project(
    project: Project,
    hub_environment: HubServer,
    video_environment: SandboxEnvironment,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Give a project with three datasets of videos, one of them on the hub."""
    hub_environment.repositories[VIDEO_MME] = video_mme(FILMS)
    monkeypatch.setenv("VLM_SANDBOX_PYTHON", str(video_environment.python))
    monkeypatch.setenv("VLM_CACHE_DIR", str(project.pytester.path / "cache"))
    monkeypatch.setenv("VLMEVALKIT_USE_MODELSCOPE", "0")
    project.pytester.makepyfile(test_video=MODULE)
    return project


def test_frames_are_asked_about_and_scored(
    video_project: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    arguments = [*endpoint(server.url), "--vlm-data=Video-MME"]
    _, cases = video_project.junit(*arguments)
    requests = server.requests()
    assert len(requests) == 4
    assert requests[0]["order"] == ["image_url"] * 8 + ["text"] * 2
    score = properties(cases["test_score[Video-MME]"])
    assert score["main_metric"] == "overall/overall"
    assert score["note"] == "8 frames per video"
    assert score["modified_data"] == "false"
    # A second session asks neither hub nor server.
    hub_environment.requests.clear()
    video_project.run(*arguments, "--vlm-offline")
    assert not hub_environment.requests
    assert len(server.requests()) == 4
    # Fewer frames are other questions.
    video_project.run(*arguments, "--vlm-nframe=2")
    assert server.requests()[-1]["order"] == ["image_url"] * 2 + ["text"] * 2
    assert len(server.requests()) == 8


def test_files_are_sent_as_they_are(
    video_project: Project, server: ServerProcess
) -> None:
    video_project.run(*endpoint(server.url), "--vlm-data=Video-MME", "--vlm-video-url")
    requests = server.requests()
    assert len(requests) == 4
    for request in requests:
        assert request["order"] == ["video_url", "text", "text"]
    sent = {json.dumps(each["images"]) for each in requests}
    assert sent == {
        json.dumps(
            [
                {
                    "media_type": "video/mp4",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                }
            ]
        )
        for data in FILMS.values()
    }


def test_a_failed_download_is_one_failed_item(
    video_project: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    result = video_project.run(*endpoint(server.url), "-k", "not 1fps")
    result.stdout.fnmatch_lines(
        [
            "vlmeval: to download: 1 dataset, < 1 MB; of unknown size: MMBench-Video",
            f"*MMBench-Video: the repository {MMBENCH_VIDEO} cannot be downloaded from "
            f"Hugging Face, {hub_environment.url} (*404 Not Found*",
        ]
    )
    assert result.parseoutcomes()["failed"] == 1
    assert len(server.requests()) == 4


def test_download_only_and_the_list(
    video_project: Project, hub_environment: HubServer
) -> None:
    def on_disk() -> dict[str, bool | None]:
        listed = video_project.run("--vlm-list=json,video")
        entries = json.loads(listed.stdout.str())
        return {entry["name"]: entry["on_disk"] for entry in entries}

    assert not on_disk()["Video-MME_1fps"]
    result = video_project.run("--vlm-download-only", "--vlm-data=Video-MME")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["vlmeval: to download: 1 dataset, *", "vlmeval: Video-MME: */Video-MME.tsv"]
    )
    found = on_disk()
    assert found["Video-MME_1fps"]
    assert found["MMBench-Video"] is False
    assert found["DREAM-1K"] is None  # its sources do not say where it comes from


def test_options_for_a_preset_alone_are_a_usage_error(
    video_project: Project, hub_environment: HubServer
) -> None:
    result = video_project.run(
        *endpoint("http://127.0.0.1:9/v1"), "--vlm-data=Video-MME_1fps", "--vlm-fps=2"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-fps=2 changes nothing: the name of a preset says how its "
            "videos are shown (Video-MME_1fps). Leave the option out, or choose "
            "Video-MME."
        ]
    )
    assert not hub_environment.requests


def test_a_server_without_videos_is_told_before_the_run(
    video_project: Project, server: ServerProcess
) -> None:
    server.control(rules=[{"videos": 1, "status": 400, "message": "no video_url"}])
    result = video_project.run(
        *endpoint(server.url),
        "--vlm-data=Video-MME",
        "--vlm-video-url",
        "--vlm-media-check=stop",
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "    videos, which Video-MME needs (* answered 400: no video_url)",
            "Without --vlm-video-url frames of each video are sent. *",
        ]
    )
    _, cases = video_project.junit(
        *endpoint(server.url), "--vlm-data=Video-MME", "--vlm-media-check=stop"
    )
    score = properties(cases["test_score[Video-MME]"])
    assert score["note"] == "8 frames per video"
