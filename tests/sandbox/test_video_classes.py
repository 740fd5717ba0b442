"""Video classes beside those of the card: frames, files, what cannot be sent."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.hub_files import lines, tape
from tests.support.sandbox_tables import extended_environment
from tests.support.video_files import colours, write_video
from tests.support.video_layouts import repositories
from tests.support.video_questions import FILM, MOVED, SPATIAL, Files
from tests.support.video_sets import VideoUser, archive, as_json, prompts, write_files

pytestmark = pytest.mark.addons


def whole(repository: str) -> dict[str, Files]:
    """Give one repository as it is invented."""
    return {repository: repositories()[repository]}


def mirrored(
    user: VideoUser, folder: Path, layout: Mapping[str, Mapping[str, bytes]]
) -> dict[str, Any]:
    """Give the settings of a user who has the files in a folder."""
    for repository, files in layout.items():
        write_files(folder / repository, files)
    return {"mirror": folder, "offline": True, "modified": True}


def test_frames_of_mvbench_are_those_of_the_video(
    user: VideoUser, tmp_path: Path
) -> None:
    settings = mirrored(user, tmp_path / "m", whole("OpenGVLab/MVBench"))
    prepared = user.prepare("MVBench_MP4_8frame", **settings)
    (prompt,) = prompts(prepared)
    shown = [
        Image.open(io.BytesIO(data)).getpixel((30, 20))
        for kind, data in prompt
        if kind == "image"
    ]
    # The middles of eight parts of the video's 23 steps (dataset/mvbench.py:535).
    asked = [int(23 / 16 + round(23 / 8 * part)) for part in range(8)]
    expected = [colours(24, 1)[number] for number in asked]
    for found, colour in zip(shown, expected, strict=True):
        assert isinstance(found, tuple)
        # Two JPEGs and the way over [0, 1] cost a few levels.
        assert all(abs(a - b) <= 4 for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize("count", [8, 64])
def test_presets_of_mvbench_say_how_many_frames_there_are(
    user: VideoUser, tmp_path: Path, count: int
) -> None:
    # One question; all lists of questions have to be there.
    listed = Path(locate_package(user.sandbox.python).folder, "dataset", "mvbench.py")
    names = re.findall(r"'(\w+\.json)'", listed.read_text(encoding="utf-8"))
    layout = {
        **{f"json/{name}": as_json([]) for name in names},
        "json/counterfactual_inference.json": as_json([MOVED]),
        "video/clevrer/video_validation/v.mp4": write_video(colours(80, 1), 4),
    }
    settings = mirrored(user, tmp_path / "m", {"OpenGVLab/MVBench": layout})
    prepared = user.prepare(f"MVBench_{count}frame", **settings)
    (prompt,) = prompts(prepared)
    shown = sum(kind == "image" for kind, _ in prompt)
    assert prepared.notes == (f"{shown} frames per video",)


def test_a_class_that_needs_another_package(
    user: VideoUser, tmp_path: Path, video_environment: SandboxEnvironment
) -> None:
    settings = mirrored(user, tmp_path / "m", whole("TIGER-Lab/MEGA-Bench"))
    with pytest.raises(VlmEvalError) as caught:
        user.prepare("MEGABench_core_16frame", **settings)
    begin, _, end = str(caught.value).partition(" (dataset/megabench.py:")
    assert begin == ("MEGABench_core_16frame: ms-vlmeval's MEGABench cannot be built")
    assert end.endswith(
        "). The package datasets is not in the sandbox's environment. "
        "--vlm-sandbox-python takes an environment that has it: with ms-vlmeval, what "
        "it declares, and datasets."
    )
    # Such a one, with no more of that package than the class asks of it.
    environment = extended_environment(
        video_environment,
        tmp_path / "own",
        datasets="""
        from pathlib import Path
        import pandas

        class Dataset(list):
            def map(self, *given):
                raise NotImplementedError

        def load_dataset(folder, name, cache_dir):
            rows = pandas.read_parquet(next(Path(folder).glob(f"{name}/*.parquet")))
            return {"test": Dataset(rows.to_dict("records"))}
        """,
    )
    sandbox = Sandbox(environment.python)
    try:
        prepared = user.prepare(
            "MEGABench_core_16frame", sandbox=sandbox, video_url=True, **settings
        )
    finally:
        sandbox.close()
    (sample,) = read_samples(prepared)
    assert sample.error is None


def test_what_a_class_draws_is_drawn_again(user: VideoUser, tmp_path: Path) -> None:
    settings = mirrored(user, tmp_path / "m", whole("Enxin/VLMEval-VDC"))
    first = user.prepare("VDC_8frame", **settings)
    asked = prompts(first)
    shutil.rmtree(first.folder)
    assert prompts(user.prepare("VDC_8frame", **settings)) == asked


def test_the_file_of_a_video_is_found_as_its_frames_are(
    user: VideoUser, tmp_path: Path
) -> None:
    for name, repository in {
        "VDC_8frame": "Enxin/VLMEval-VDC",
        "OMTGBench_1fps": "insomnia7/omtg_bench",
        "V2PBench_8frame_nopack": "gaotiexinqu/V2P-Bench",
    }.items():
        settings = mirrored(user, tmp_path / "m", whole(repository))
        prepared = user.prepare(name, video_url=True, **settings)
        (prompt,) = prompts(prepared)
        assert ("video", FILM) in prompt


def test_two_rows_with_one_index(user: VideoUser, tmp_path: Path) -> None:
    layout = {
        "": {"VSI-Bench.tsv": lines([SPATIAL, SPATIAL])},
        "nyu-visionx/VSI-Bench": {"a.zip": archive({"v.mp4": FILM})},
    }
    with pytest.raises(VlmEvalError) as caught:
        user.prepare("VSI-Bench", **mirrored(user, tmp_path / "m", layout))
    assert str(caught.value) == (
        "VSI-Bench: rows 1 and 2 have the same index 0; each row needs one of its own."
    )


def test_sound_is_not_sent(user: VideoUser, tmp_path: Path) -> None:
    layout = whole("plnguyen2908/AV-SpeakerBench")
    settings = mirrored(user, tmp_path / "m", layout)
    prepared = user.prepare("AV-SpeakerBench_audio_only_8frame", **settings)
    (sample,) = read_samples(prepared)
    assert sample.error == (
        "row 1 (index 0): its prompt has a part of the type audio; models are sent "
        "text, images and videos"
    )


def test_a_member_of_an_archive_stays_below_its_folder(
    user: VideoUser, tmp_path: Path
) -> None:
    layout = {
        "longvideobench/LongVideoBench": {
            **repositories()["longvideobench/LongVideoBench"],
            "videos.tar.part.aa": tape({"../../../escaped.mp4": FILM}),
        }
    }
    settings = mirrored(user, tmp_path / "m", layout)
    with pytest.raises(VlmEvalError, match="OutsideDestinationError"):
        user.prepare("LongVideoBench_8frame", **settings)
    assert not list(tmp_path.rglob("escaped.mp4"))
