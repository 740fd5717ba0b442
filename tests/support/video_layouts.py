"""The repositories of every video class, small and in their own layouts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tests.support.hub_files import lines, parquet, tape
from tests.support.sandbox_tables import draw
from tests.support.video_questions import (
    FILM,
    IMAGE,
    MOVED,
    MOVING,
    SPATIAL,
    Files,
    cgbench,
    counting,
    egoexo,
    megabench,
    mvbench,
    tampered,
    tempcompass,
    videommev2,
    videommmu,
    worldsense,
)
from tests.support.video_sets import archive, as_json, mmbench_video, video_mme, videos

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
    "audio_path": "audio/v.wav",
    "audio_visual_path": "visual/v.mp4",
    "question": "Q?",
    "choices": "['a', 'b']",
    "answer": "A",
}
WATCHED = {
    "index": 0,
    "video": "v.mp4",
    "video_path": "v.mp4",
    "question": "Q?",
    "answer": "a",
}
LEARNED = "plotQA needle ego count order anomaly_reco topic_reasoning sub_scene summary"
THOUGHT = {
    "video_id": "v",
    "question": "Q?",
    "answer": "A",
    **dict.fromkeys(("duration", "question_prompt", "capability"), "x"),
}
# A question about two videos.
SEVERAL = {
    "video_paths": ["v.mp4", "w.mp4"],
    "question": "Q?",
    "options": ["A. a", "B. b"],
    "ground_truth": "A",
    "task": "Counting",
}


def watched(count: int, **columns: str) -> bytes:
    """Give a table of questions about one video."""
    return lines([{**WATCHED, **columns, "index": number} for number in range(count)])


# What ModelScope calls some of them.
ELSEWHERE = {
    "longvideobench/LongVideoBench": "AI-ModelScope/LongVideoBench",
    "MLVU/MVLU": "AI-ModelScope/MLVU",
    "OpenGVLab/MVBench": "modelscope/MVBench",
    "Enxin/VLMEval-VDC": "AI-ModelScope/VLMEval-VDC",
}


@cache
def repositories() -> dict[str, Files]:
    """Give all of them by name."""
    known = {
        **_published(),
        **_long(),
        **_lessons(),
        **_spatial(),
        **_moments(),
        **egoexo(),
    }
    return {**known, **{other: known[name] for name, other in ELSEWHERE.items()}}


def _published() -> dict[str, Files]:
    """Give those of classes that make their tables of several files."""
    return {
        "opencompass/MMBench-Video": mmbench_video(videos("red", "blue")),
        "OpenGVLab/MVBench": mvbench(dict.fromkeys(MOVING, FILM)),
        **{f"Srikant86/MVTamperBench{end}": tampered() for end in ("", "Start", "End")},
        "lmms-lab/Video-MME": video_mme(videos("one", "two")),
        "MME-Benchmarks/Video-MME-v2": videommev2(),
        "lmms-lab/VideoMMMU": videommmu(),
        # Three classes in one, which ms-vlmeval itself cannot build.
        "lmms-lab/TempCompass": tempcompass(),
        "CG-Bench/CG-Bench": cgbench(),
        "CG-Bench/CG-AV-Counting": counting(),
        "honglyhly/WorldSense": worldsense(),
        "TIGER-Lab/MEGA-Bench": megabench(),
    }


def _long() -> dict[str, Files]:
    """Give those about long videos, which most have in tars."""
    learned = list(enumerate(LEARNED.split(), start=1))
    lesson = {**MOVED, "duration": 6}
    # A preset takes the hundredth part.
    movies = [{**WATCHED, "index": n, "mode": "global"} for n in range(100)]
    movies.append({**WATCHED, "index": 100, "mode": "breakpoint"})
    return {
        # It takes the folder of a cache that is not there yet; its parts are tars.
        "longvideobench/LongVideoBench": {
            "lvb_val.json": as_json([CLIP]),
            "videos.tar.part.aa": tape({"videos/v.mp4": FILM}),
            "subtitles.tar": tape({"subtitles/v.json": b"[]"}),
        },
        "MLVU/MVLU": {
            **{
                f"MLVU/json/{number}_{name}.json": as_json([lesson])
                for number, name in learned
            },
            **{f"MLVU/video/{number}_{name}/v.mp4": FILM for number, name in learned},
        },
        "Enxin/VLMEval-MovieChat1k": {
            "MovieChat1k.tsv": lines(movies),
            "videos.tar": tape({"videos/v.mp4": FILM}),
        },
        "Enxin/VLMEval-VDC": {
            "VDC.tsv": watched(1, caption_type="short"),
            "videos.tar": tape({"videos/v.mp4": FILM}),
        },
    }


def _lessons() -> dict[str, Files]:
    """Give those that ask for reasons, qualities and what was taught."""
    return {
        "zhangzicheng/Q-Bench-Video": {
            "video.zip": archive({"video/v.mp4": FILM}),
            **{
                f"qbenchvideo_single_{kind}.tsv": watched(1, video_path="video/v.mp4")
                for kind in ("MCQ", "VQA")
            },
        },
        "TencentARC/Video-Holmes": {
            "test_Video-Holmes.json": as_json(
                [{"video ID": "v", "Options": {"A": "a", "B": "b"}, "Question": "Q?"}]
            ),
            "videos.zip": archive({"videos/v.mp4": FILM}),
        },
        "VLM-Reasoning/VCR-Bench": {
            "VCR-Bench.tsv": watched(
                1, video="v1/videos/video/v", video_path="v1/videos/video/v.mp4"
            ),
            "v1/videos/video.zip": archive({"video/v.mp4": FILM}),
        },
        "Enxin/Video-MMLU": {
            **{
                f"Video_MMLU_{kind}.tsv": watched(1, discipline="Math")
                for kind in ("CAP", "QA")
            },
            "youtube_videos.tar": tape({"youtube_videos/v.mp4": FILM}),
        },
        "lmms-lab/video-tt": {
            "data/test-00000-of-00001.parquet": parquet([THOUGHT]),
            "Benchmark-AllVideos-LQ.zip": archive({"v.mp4": FILM}),
        },
    }


def _spatial() -> dict[str, Files]:
    """Give those of tables at addresses, with their videos; some files by pattern."""
    minutes = (10, 30, 60, 120, 240)
    super_films = {f"{n}mins.zip": archive({"v.mp4": FILM}) for n in minutes}
    frames = {f"frames/{n}.jpg": draw(n, "JPEG") for n in range(4)}
    return {
        "nyu-visionx/VSI-Bench": {"a.zip": archive({"v.mp4": FILM})},
        "nyu-visionx/VSI-SUPER-Recall": super_films,
        "nyu-visionx/VSI-SUPER-Count": super_films,
        "MINT-SJTU/STI-Bench": {"video.zip": archive({"v.mp4": FILM})},
        "lmms-lab-si/EASI-Leaderboard-Data": {
            "raw_data/dsr-bench.zip": archive({"dsr-bench/v.mp4": FILM})
        },
        "franky-veteran/SITE-Bench": {"a.zip": archive({"v.mp4": FILM})},
        "rbler/MMSI-Video-Bench": {"frames.zip": archive(frames)},
    }


def _moments() -> dict[str, Files]:
    """Give those about a moment, a speaker, several videos or what happens in one."""
    return {
        # Files that go to LMUData, of two repositories.
        "mjuicem/DREAM-1k-VLMEvalKit": {"DREAM-1K.tsv": watched(1, video="video/v")},
        "omni-research/DREAM-1K": {"video/video.zip": archive({"video/v.mp4": FILM})},
        "MVU-Eval-Team/MVU-Eval-Data": {
            "MVU_Eval.json": as_json({"0": SEVERAL}),
            "videos.zip": archive({"v.mp4": FILM, "w.mp4": FILM}),
        },
        "insomnia7/omtg_bench": {
            "OMTGBench.tsv": watched(1),
            "videos.zip": archive({"videos/v.mp4": FILM}),
        },
        "gaotiexinqu/V2P-Bench": {
            "V2P-Bench.tsv": watched(1, video_path="MVBench/v.mp4", frame_path="v.jpg"),
            "videos/MVBench.zip": archive({"MVBench/v.mp4": FILM}),
            "frames/v.jpg": IMAGE,
        },
        # A branch of its own.
        "plnguyen2908/AV-SpeakerBench": {
            "test.tsv": lines([SPOKEN]),
            "v.zip": archive({"visual/v.mp4": FILM, "audio/v.wav": b"RIFF"}),
        },
    }


def tables(urls: Iterable[str]) -> Files:
    """Give the table that each of these addresses leads to."""
    return {url.rpartition("/")[2]: lines([SPATIAL]) for url in urls}
