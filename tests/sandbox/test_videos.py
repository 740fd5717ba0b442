"""Videos: how they are shown, what classes draw of them, and how they are scored."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.datasets.prepare import (
    check_frames_apply,
    describe_videos,
    read_samples,
    show_videos,
)
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import DatasetInfo, PreparedDataset, Scoring, Setting
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.inside.media import Compose, Tensor, ToPILImage, split
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.hub_files import lines, tape
from tests.support.sandbox_tables import (
    extended_environment,
    score,
    seed_rows,
    shared_file,
    values,
    write_rows_file,
)
from tests.support.video_files import colours, write_video
from tests.support.video_layouts import repositories
from tests.support.video_questions import FILM, MOVED, SPATIAL, Files
from tests.support.video_rows import CHOICES, GRADED, choice_rows, graded_rows
from tests.support.video_sets import VideoUser, archive, as_json, prompts, write_files

if TYPE_CHECKING:
    from pytest_vlmeval.run.judge import Judge
    from pytest_vlmeval.sandbox.calls import ScoredDataset
    from tests.support.judge_calls import OpenJudge
    from tests.support.sandbox_tables import Row
    from tests.support.server_fixtures import ServerProcess

BARE = DatasetInfo(
    name="Video-MME",
    class_name="VideoMME",
    module="videomme",
    kind="multiple_choice",
    modality="video",
)
PRESET = replace(
    BARE,
    name="Video-MME_64frame",
    settings={"dataset": "Video-MME", "nframe": 64},
)
IMAGE = replace(BARE, name="MMStar", modality="image")


@pytest.mark.parametrize(
    ("nframe", "fps", "settings", "note"),
    [
        (None, None, {"nframe": 8}, "8 frames per video"),
        (1, None, {"nframe": 1}, "1 frame per video"),
        (None, 0.5, {"fps": 0.5}, "0.5 frames per second of video"),
        (None, 1.0, {"fps": 1.0}, "1 frame per second of video"),
    ],
)
def test_a_bare_name_is_shown_as_the_options_say(
    nframe: int | None, fps: float | None, settings: dict[str, float], note: str
) -> None:
    info = show_videos(BARE, nframe, fps)
    assert info.settings == settings
    assert describe_videos(info, video_url=False) == (note,)
    assert describe_videos(info, video_url=True) == ("videos sent as their files",)


def test_a_preset_keeps_its_own_and_images_have_none() -> None:
    assert show_videos(PRESET, 4, None) == PRESET
    assert describe_videos(PRESET, video_url=False) == ("64 frames per video",)
    assert show_videos(IMAGE, 4, None) == IMAGE
    assert describe_videos(IMAGE, video_url=True) == ()


def test_options_for_presets_alone_are_an_error() -> None:
    with pytest.raises(VlmEvalError) as caught:
        check_frames_apply([PRESET, IMAGE], 4, None)
    assert str(caught.value) == (
        "--vlm-nframe=4 changes nothing: the name of a preset says how its videos are "
        "shown (Video-MME_64frame). Leave the option out, or choose Video-MME."
    )
    with pytest.raises(VlmEvalError, match=r"^--vlm-fps=2 changes nothing"):
        check_frames_apply([PRESET], None, 2)
    check_frames_apply([PRESET, BARE], 4, None)
    check_frames_apply([IMAGE], 4, None)
    check_frames_apply([PRESET], None, None)


def test_frames_are_stacked_and_taken_apart() -> None:
    # Two frames of all 256 levels, their channels behind one another.
    levels = np.arange(2 * 3 * 256, dtype=np.int64).reshape(1, 256, 6) % 256
    frames = levels.astype(np.uint8)
    steps = [
        lambda array: Tensor(array).permute(2, 0, 1).contiguous(),
        lambda tensor: tensor.float().div(255),
    ]
    stacked = Compose(steps)(frames)
    assert stacked.size(0) == 6
    parts = split(stacked, 3)
    assert [part.size(0) for part in parts] == [3, 3]
    for number, part in enumerate(parts):
        image = np.asarray(ToPILImage()(part)).astype(int)
        whole = frames[..., 3 * number : 3 * number + 3].astype(int)
        assert (image == whole).all()


PACKED: dict[str, Setting] = {"dataset": "MMBench-Video", "nframe": 8, "pack": True}
SEEDS = ("seed_fixtures", "hfcache", "hub")
SNAPSHOT = ("snapshots", "0123456789abcdef0123456789abcdef01234567")


def score_rows(
    sandbox: Sandbox,
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[Row],
    answers: Mapping[str, str],
    judge: Judge | None = None,
    scoring: Scoring = "published",
) -> ScoredDataset:
    """Score answers to rows that have nothing but what scoring reads."""
    write_rows_file(folder, rows)
    prepared = PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
        notes=("8 frames per video",),
    )
    return score(sandbox, prepared, answers.items(), judge, scoring)


def test_options_are_matched_exactly_without_a_judge(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    answers = {"0": "The best answer is A.", "1": "(C)", "2": "pick number 1"}
    found = score_rows(sandbox, tmp_path, CHOICES, choice_rows(), answers)
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 0}
    assert [each.extracted for each in found.verdicts] == ["A", "C", None]
    assert found.verdicts[2].reason == "no letter from A to D in the answer"
    assert found.main_metric == "overall/overall"
    assert found.value == pytest.approx(33.3)
    assert found.metrics["short/overall"] == 0.5
    assert found.metrics["long/domain/Knowledge"] == 0
    # Durations and topics without a question are left out.
    assert "medium/overall" not in found.metrics
    assert found.notes == ("8 frames per video",)


def test_one_answer_scores(sandbox: Sandbox, tmp_path: Path) -> None:
    found = score_rows(sandbox, tmp_path, CHOICES, choice_rows(), {"2": "A"})
    assert (found.main_metric, found.value) == ("overall/overall", 100)
    assert values(found.verdicts) == {"2": 1}


@pytest.mark.parametrize(("scoring", "right"), [("published", 0), ("corrected", 1)])
def test_the_judge_sees_the_options_in_corrected_scoring_alone(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    scoring: Scoring,
    right: int,
) -> None:
    judge = open_judge(answers={"A. Red apples": "A"}, default="Z")
    answers = {"1": "B", "2": "pick number 1"}
    found = score_rows(
        sandbox, tmp_path, CHOICES, choice_rows(), answers, judge, scoring
    )
    assert values(found.verdicts) == {"1": 1, "2": right}
    assert found.verdicts[1].extracted == (None, "A")[right]
    assert found.value == pytest.approx(50 + 50 * right)
    assert found.scoring == scoring
    # What matched exactly is not asked, nor what could not be read.
    assert len(server.requests()) == right


def test_a_reply_that_names_no_option_is_unclear(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    judge = open_judge(default="who knows")
    found = score_rows(
        sandbox,
        tmp_path,
        CHOICES,
        choice_rows(),
        {"1": "B", "2": "pick number 1"},
        judge,
        "corrected",
    )
    assert values(found.verdicts) == {"1": 1, "2": None}
    assert found.verdicts[1].reason == "the judge's reply cannot be used: who knows"
    assert (found.value, found.best) == (50, 100)


def test_points_of_a_judge(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    answers = {"0": "a carton", "1": "nothing", "2": "noise"}
    replies = {"a carton": "2", "nothing": "0", "noise": "who knows"}
    judge = open_judge(answers=replies)
    found = score_rows(sandbox, tmp_path, GRADED, graded_rows(), answers, judge)
    assert values(found.verdicts) == {"0": 2 / 3, "1": 0, "2": None}
    assert [each.reason for each in found.verdicts] == [
        "2 points",
        "0 points",
        "the judge's reply cannot be used: who knows",
    ]
    assert found.metrics["coarse_all/Overall"] == 0.67
    assert found.main_metric == "coarse_all/Overall"
    assert found.value == pytest.approx(0.67 * 100 / 3)
    assert found.best == pytest.approx(1.67 * 100 / 3)


def test_answers_to_all_questions_about_a_video(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    info = DatasetInfo(
        name="MMBench_Video_8frame_pack",
        class_name="MMBenchVideo",
        module="mmbench_video",
        kind="vqa",
        modality="video",
        settings=PACKED,
    )
    answers = {"red": '{"0": "a carton", "1": "a box"}', "blue": "I cannot say"}
    replies = {"a carton": "2", "Candidate answer: a box": "3"}
    judge = open_judge(answers=replies)
    found = score_rows(sandbox, tmp_path, info, graded_rows(), answers, judge)
    verdicts = {each.index: each for each in found.verdicts}
    assert verdicts["red"].value == pytest.approx(5 / 6)
    assert verdicts["red"].reason == "2, 3 points"
    assert verdicts["blue"].value == 0
    assert found.metrics["coarse_all/Overall"] == pytest.approx(1.67)


def test_mmbench_video_needs_a_judge(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(NeedsJudgeError, match=r"^MMBench-Video is scored by a judge"):
        score_rows(sandbox, tmp_path, GRADED, graded_rows(), {"0": "a"})


def seed_table(repository: str, name: str) -> list[Row]:
    """Give the rows of a seed fixture."""
    path = shared_file(*SEEDS, repository, *SNAPSHOT, f"{name}.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file, delimiter="\t")]


def test_every_verdict_of_video_mme_s_fixture(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows = seed_rows("Video-MME")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--lmms-lab--Video-MME", "Video-MME")
    exact = score_rows(sandbox, tmp_path, CHOICES, table, answers)
    assert values(exact.verdicts) == {row["index"]: row["exact"] for row in rows}
    judge = open_judge(answers={"pick number 4": "D", "pick number 2": "B"})
    judged = score_rows(sandbox, tmp_path, CHOICES, table, answers, judge, "corrected")
    assert values(judged.verdicts) == {row["index"]: row["judge"] for row in rows}


def test_every_verdict_of_mmbench_video_s_fixture(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows = seed_rows("MMBench-Video")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--opencompass--MMBench-Video", "MMBench-Video")
    replies = {
        f"Candidate answer: {row['prediction']}\n": str(3 * row["judge"])
        for row in rows
    }
    judge = open_judge(answers=replies)
    judged = score_rows(sandbox, tmp_path, GRADED, table, answers, judge)
    assert values(judged.verdicts) == {row["index"]: row["judge"] for row in rows}
    assert judged.value == pytest.approx(50)


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


@pytest.mark.addons
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


@pytest.mark.addons
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


@pytest.mark.addons
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


@pytest.mark.addons
def test_what_a_class_draws_is_drawn_again(user: VideoUser, tmp_path: Path) -> None:
    settings = mirrored(user, tmp_path / "m", whole("Enxin/VLMEval-VDC"))
    first = user.prepare("VDC_8frame", **settings)
    asked = prompts(first)
    shutil.rmtree(first.folder)
    assert prompts(user.prepare("VDC_8frame", **settings)) == asked


@pytest.mark.addons
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


@pytest.mark.addons
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


@pytest.mark.addons
def test_sound_is_not_sent(user: VideoUser, tmp_path: Path) -> None:
    layout = whole("plnguyen2908/AV-SpeakerBench")
    settings = mirrored(user, tmp_path / "m", layout)
    prepared = user.prepare("AV-SpeakerBench_audio_only_8frame", **settings)
    (sample,) = read_samples(prepared)
    assert sample.error == (
        "row 1 (index 0): its prompt has a part of the type audio; models are sent "
        "text, images and videos"
    )


@pytest.mark.addons
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
