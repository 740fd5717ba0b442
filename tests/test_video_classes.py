"""Video classes beside those of the card, each with a repository in its layout."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.datasets.videos import show_videos
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import Shelf, locate_in_sandbox
from tests.sandbox_tables import Row, media_of
from tests.video_files import colours, write_video
from tests.video_sets import VideoUser, archive, as_json, prompts, write_files

pytestmark = pytest.mark.addons

FILM = write_video(colours(24, 1), 4)


def table(*rows: Row) -> bytes:
    """Write a TSV as a repository has it."""
    names = list(rows[0])
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def tape(files: Mapping[str, bytes]) -> bytes:
    """Pack files into a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return out.getvalue()


def tempcompass() -> dict[str, bytes]:
    """Give the questions of all three kinds about one video."""
    row = {"video_id": "v", "question": "Q?\nA. a\nB. b", "answer": "A. a", "dim": "x"}
    caption = {**row, "mc_question": "Q?\nA. a", "mc_answer": "A"}
    return {
        "tempcompass_videos.zip": archive({"videos/v.mp4": FILM}),
        "multi-choice.json": as_json([row]),
        "caption_matching.json": as_json([]),
        "captioning.json": as_json([caption]),
        "yes_no.json": as_json([row]),
    }


CLIP = {
    "video_id": "v",
    "video_path": "v.mp4",
    "question": "Q?",
    "candidates": ["a", "b"],
    "correct_choice": 0,
    "subtitle_path": "v.json",
    "starting_timestamp_for_subtitles": 0,
    "duration": 6.0,
}
SPOKEN = {
    "index": 0,
    "video": "v",
    "video_id": "v",
    "visual_path": "visual/v.mp4",
    "question": "Q?",
    "choices": "['a', 'b']",
    "answer": "A",
}
SPATIAL = {
    "index": 0,
    "video": "v.mp4",
    "question": "How far?",
    "question_type": "object_abs_distance",
    "options": "['A. x', 'B. y']",
    "candidates": "",
    "answer": "A",
    "task_type": "abs_dis",
}
MOVED = {"video": "v.mp4", "question": "Q?", "answer": "a", "candidates": ["a", "b"]}
# The repositories of each, and under "" the table that has an address of its own.
LAYOUTS: dict[str, dict[str, dict[str, bytes]]] = {
    # Three classes in one, which ms-vlmeval itself cannot build.
    "TempCompass_8frame": {"lmms-lab/TempCompass": tempcompass()},
    # It takes the folder of a cache that is not there yet; its parts are tars.
    "LongVideoBench_8frame": {
        "longvideobench/LongVideoBench": {
            "lvb_val.json": as_json([CLIP]),
            "videos.tar.part.aa": tape({"videos/v.mp4": FILM}),
            "subtitles.tar": tape({"subtitles/v.json": b"[]"}),
        }
    },
    # Files that go to LMUData, of two repositories.
    "DREAM-1K_8frame": {
        "mjuicem/DREAM-1k-VLMEvalKit": {
            "DREAM-1K.tsv": table(
                {"index": 0, "video": "video/1", "question": "Q?", "answer": "x"}
            )
        },
        "omni-research/DREAM-1K": {"video/video.zip": archive({"video/1.mp4": FILM})},
    },
    # A table at an address, videos in a repository; files by pattern for the second.
    "VSI-Bench_16frame": {
        "": {"VSI-Bench.tsv": table(SPATIAL)},
        "nyu-visionx/VSI-Bench": {"a.zip": archive({"v.mp4": FILM})},
    },
    "DSRBench_30frame": {
        "": {"DSRBench.tsv": table(SPATIAL)},
        "lmms-lab-si/EASI-Leaderboard-Data": {
            "raw_data/dsr-bench.zip": archive({"dsr-bench/v.mp4": FILM})
        },
    },
    # A branch of its own.
    "AV-SpeakerBench_visual_8frame": {
        "plnguyen2908/AV-SpeakerBench": {
            "test.tsv": table(SPOKEN),
            "v.zip": archive({"visual/v.mp4": FILM}),
        }
    },
    # Frames that go through torch, which is not there.
    "MVBench_MP4_8frame": {
        "OpenGVLab/MVBench": {
            "test.json": as_json({"root": {"t": "videos/t"}, "meta": {"t": [MOVED]}}),
            "videos/t/v.mp4": FILM,
        }
    },
}


def mirrored(
    user: VideoUser, folder: Path, layout: Mapping[str, Mapping[str, bytes]]
) -> dict[str, Any]:
    """Give the settings of a user who has the files in a folder."""
    for repository, files in layout.items():
        write_files(folder / repository, files)
    return {"mirror": folder, "offline": True, "modified": True}


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_prepared_with_frames(user: VideoUser, tmp_path: Path, name: str) -> None:
    settings = mirrored(user, tmp_path / "mirror", LAYOUTS[name])
    prepared = user.prepare(name, **settings)
    samples = read_samples(prepared)
    assert samples
    assert [sample.error for sample in samples] == [None] * len(samples)
    assert {"image", "text"} == {part.kind for part in samples[0].prompt}
    assert len(media_of(prepared)) >= 8
    # A second time nothing is looked for.
    assert user.prepare(name, **settings) == prepared


def test_frames_of_mvbench_are_those_of_the_video(
    user: VideoUser, tmp_path: Path
) -> None:
    name = "MVBench_MP4_8frame"
    prepared = user.prepare(name, **mirrored(user, tmp_path / "m", LAYOUTS[name]))
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


def test_every_video_dataset_says_which_repository_it_wants(
    user: VideoUser, tmp_path: Path
) -> None:
    shelf: Shelf = {
        "hub": "huggingface",
        "snapshots": [],
        "files": [],
        "table": str(tmp_path / "table.tsv"),
        "data_root": str(tmp_path),
        "any_checksum": False,
    }
    (tmp_path / "table.tsv").write_bytes(table(SPATIAL))
    wanted: dict[str, str] = {}
    failed: dict[str, str] = {}
    for info in user.catalog.values():
        if info.modality == "video":
            try:
                found = locate_in_sandbox(
                    user.sandbox, show_videos(info, None, None), shelf
                )
            except VlmEvalError as error:
                failed[info.class_name] = str(error)
            else:
                wanted[info.name] = found["needs"]["repository"]
    assert len(wanted) == 254
    assert wanted["MLVU_8frame"] == wanted["MLVU_MCQ"] == "MLVU/MVLU"
    assert wanted["VDC_1fps"] == "Enxin/VLMEval-VDC"
    assert failed.keys() == {"MEGABench", "OMTGBench"}
    assert "needs the package scipy" in failed["OMTGBench"]


def test_a_class_that_needs_another_package(user: VideoUser) -> None:
    with pytest.raises(VlmEvalError) as caught:
        user.prepare("OMTGBench_1fps")
    assert str(caught.value) == (
        "OMTGBench_1fps: ms-vlmeval's OMTGBench needs the package scipy, which the "
        "sandbox's environment does not have. --vlm-sandbox-python takes an "
        "environment of yours that has it."
    )


def test_two_rows_with_one_index(user: VideoUser, tmp_path: Path) -> None:
    layout = {
        "": {"VSI-Bench.tsv": table(SPATIAL, SPATIAL)},
        "nyu-visionx/VSI-Bench": {"a.zip": archive({"v.mp4": FILM})},
    }
    with pytest.raises(VlmEvalError) as caught:
        user.prepare("VSI-Bench", **mirrored(user, tmp_path / "m", layout))
    assert str(caught.value) == (
        "VSI-Bench: rows 1 and 2 have the same index 0; each row needs one of its own."
    )


def test_sound_is_not_sent(user: VideoUser, tmp_path: Path) -> None:
    row = {**SPOKEN, "audio_path": "audio/v.wav", "audio_visual_path": "visual/v.mp4"}
    layout = {
        "plnguyen2908/AV-SpeakerBench": {
            "test.tsv": table(row),
            "v.zip": archive({"visual/v.mp4": FILM, "audio/v.wav": b"RIFF"}),
        }
    }
    settings = mirrored(user, tmp_path / "m", layout)
    prepared = user.prepare("AV-SpeakerBench_audio_only_8frame", **settings)
    (sample,) = read_samples(prepared)
    assert sample.error == (
        "row 1 (index 0): its prompt has a part of the type audio; models are sent "
        "text, pictures and videos"
    )


def test_a_member_of_an_archive_stays_below_its_folder(
    user: VideoUser, tmp_path: Path
) -> None:
    layout = {
        "longvideobench/LongVideoBench": {
            **LAYOUTS["LongVideoBench_8frame"]["longvideobench/LongVideoBench"],
            "videos.tar.part.aa": tape({"../../../escaped.mp4": FILM}),
        }
    }
    settings = mirrored(user, tmp_path / "m", layout)
    with pytest.raises(VlmEvalError, match="OutsideDestinationError"):
        user.prepare("LongVideoBench_8frame", **settings)
    assert not list(tmp_path.rglob("escaped.mp4"))
