"""Small repositories of video classes that take several files, each in its layout."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from tests.support.hub_files import lines, parquet, tape
from tests.support.sandbox_tables import draw
from tests.support.video_files import colours, write_video
from tests.support.video_sets import archive, as_json

Files = dict[str, bytes]

# 24 frames, six seconds.
FILM = write_video(colours(24, 1), 4)
IMAGE = draw(1, "JPEG")
SUBTITLES = b"1\n00:00:00,000 --> 00:00:05,000\nHello there\n"

MOVED = {"video": "v.mp4", "question": "Q?", "answer": "a", "candidates": ["a", "b"]}
# Questions about space, whose tables have addresses of their own.
SPATIAL = {
    "index": 0,
    "video": "v.mp4",
    "video_path": "v.mp4",
    "question": "How far?",
    "question_type": "object_abs_distance",
    "options": "['A. x', 'B. y']",
    "candidates": "['x', 'y']",
    "answer": "A",
    "task_type": "abs_dis",
    "time_start": "0",
    "time_end": "6",
    "system_prompt": "Look.",
    "task_prompt": "These are frames: <video>",
    "user_prompt": "and this an image: <image>",
    "format_prompt": "Answer.",
    "image_path": str([[f"frames/{n}.jpg" for n in range(4)]]),
    "ref_images": "['frames/0.jpg']",
    "video_fps": "2",
}
# Files of lists of questions, by the folder of their videos (dataset/mvbench.py:42).
MOVING = {
    "star/Charades_v1_480": "action_sequence action_prediction object_interaction",
    "ssv2_video": "action_antonym",
    "Moments_in_Time_Raw/videos": "fine_grained_action",
    "FunQA_test/test": "unexpected_action",
    "clevrer/video_validation": "object_existence moving_direction moving_count "
    "moving_attribute counterfactual_inference",
    "perception/videos": "object_shuffle action_count state_change character_order",
    "sta/sta_video": "action_localization",
    "scene_qa/video": "scene_transition",
    "nturgbd": "fine_grained_pose",
    "vlnqa": "egocentric_navigation",
}


def tempcompass() -> Files:
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


def mvbench(films: Mapping[str, bytes]) -> Files:
    """Give a question of each list, one of them about images; and MVBench_MP4."""
    row = {**MOVED, "start": 1, "end": 4}
    frames = {f"{n:05d}.jpg": draw(n, "JPEG") for n in range(1, 19)}
    return {
        **{
            f"json/{name}.json": as_json([row])
            for names in MOVING.values()
            for name in names.split()
        },
        "json/episodic_reasoning.json": as_json([{**row, "video": "v"}]),
        **{
            f"video/tvqa/frames_fps3_hq/v/{name}": data for name, data in frames.items()
        },
        **{f"video/{folder}/v.mp4": data for folder, data in films.items()},
        "test.json": as_json({"root": {"t": "videos/t"}, "meta": {"t": [MOVED]}}),
        "videos/t/v.mp4": FILM,
    }


def tampered() -> Files:
    """Give a question of each list of MVTamperBench."""
    row = {**MOVED, "tamper_type": "dropping"}
    names = " ".join([*MOVING.values(), "episodic_reasoning"]).split()
    return {
        **{f"json/{name}.json": as_json([row]) for name in names},
        **{f"video/{folder}/v.mp4": FILM for folder in MOVING},
    }


def cgbench() -> Files:
    """Give a question with its clue, for both sizes."""
    row = {
        "video_uid": "u",
        "duration": 6,
        "domain": "x",
        "choices": ["a", "b"],
        "sub_category": "x",
        "question": "Q?",
        "right_answer": "A",
        "answer": "a",
        "clue_intervals": [[1, 4]],
        "qid": 1,
    }
    return {
        "cgbench_mini.json": as_json([row]),
        "cgbench.json": as_json([row]),
        "video_chunk_1.zip": archive({"u.mp4": FILM}),
        "clue_video_chunk_1.zip": archive({"1.mp4": FILM}),
        "subtitles.zip": archive({"u.srt": SUBTITLES}),
    }


def counting() -> Files:
    """Give a question of each kind of clue."""
    box = {"timestamp": 1.0, "bbox": [1, 2, 3, 4]}
    clues: dict[str, Any] = {"event": [[0, 1]], "object": [box], "attribute": [[box]]}
    rows = [
        {
            "video": "u.mp4",
            "question": "How many?",
            "answer": 1,
            "type": "x",
            "category": category,
            "clue": clue,
            "query_interval": [0, 2],
        }
        for category, clue in clues.items()
    ]
    return {
        "cg-av-counting.json": as_json(rows),
        "video_chunk_1.zip": archive({"u.mp4": FILM}),
        "ref_videos/u_0.00_2.00.mp4": FILM,
        "subtitles.zip": archive({}),
    }


def worldsense() -> Files:
    """Give a question about a video, whose sound is cut out of it."""
    task = {
        "candidates": ["A. a", "B. b"],
        "task_domain": "x",
        "task_type": "x",
        "question": "Q?",
        "answer": "A",
    }
    about = "duration domain sub_category audio_class video_caption".split()
    return {
        "worldsense_videos_1.zip": archive({"v.mp4": FILM}),
        "worldsense_subtitles.zip": archive({"v.srt": SUBTITLES}),
        "worldsense_qa.json": as_json(
            {"v": {**dict.fromkeys(about, "x"), "task1": task}}
        ),
    }


def videommmu() -> Files:
    """Give a question whose image comes last, and one without."""
    row = {
        "id": "v",
        "question": "Q?",
        "answer": "A",
        "options": ["a", "b"],
        "question_type": "multiple-choice",
    }
    image = {"image": {"bytes": IMAGE, "path": "v.jpg"}}
    return {
        "Adaptation/test.parquet": parquet([{**row, **image}]),
        "Perception/test.parquet": parquet([row]),
        "videos.zip": archive({"Art/v.mp4": FILM, "question_only/v.mp4": FILM}),
    }


def videommev2() -> Files:
    """Give a question about a video with words and their times."""
    heads = "url group_type group_structure question_id level second_head third_head"
    row = {
        "video_id": "001",
        "question": "Q?",
        "options": "A. a\nB. b",
        "answer": "A",
        **dict.fromkeys(heads.split(), "x"),
    }
    word = {"text": "Hello", "start_time": 0.5, "end_time": 2.0}
    return {
        "test.parquet": parquet([row]),
        "videos/1.zip": archive({"001.mp4": FILM}),
        "subtitle/001.jsonl": json.dumps(word).encode(),
    }


def megabench() -> Files:
    """Give a task of each subset, with an example, an image and a video."""
    row = {
        "id": "t/0",
        "task_name": "t",
        "task_description": "Look: <image>",
        "global_media": "['./p.png']",
        "example_text": "Like this: <video>",
        "example_media": "['./v.mp4']",
        "query_text": "Now: <video>",
        "query_media": "['./v.mp4']",
        "answer": "a",
        "metric_info": "{}",
        "eval_context": "{}",
    }
    out = io.BytesIO()
    Image.open(io.BytesIO(IMAGE)).convert("RGBA").save(out, "PNG")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n"
        f"    path: {name}/test-*.parquet\n"
        for name in ("core", "open")
    )
    return {
        "README.md": f"---\nconfigs:\n{configs}---\n".encode(),
        "core/test-00000-of-00001.parquet": parquet([row]),
        "open/test-00000-of-00001.parquet": parquet([row]),
        "data.zip": archive({"v.mp4": FILM, "p.png": out.getvalue()}),
    }


def egoexo() -> dict[str, Files]:
    """Give questions about a video, a part of it, images, and one to leave out."""
    film = {"type": "video", "video_path": "processed_videos/v.mp4", "nframes": 4}
    medias: list[dict[str, Any]] = [
        film,
        {**film, "video_start": 1, "video_end": 4},
        {"type": "frames", "image_paths": ["processed_frames/a/1.jpg"]},
        {**film, "video_path": "EgoExo4D/v.mp4"},
    ]
    rows = [
        {
            "index": number,
            "video": "v",
            "question": "Watch: <video>",
            "options": "A. a",
            "response_format": "Answer.",
            "answer": "A",
            "medias": str([media]),
        }
        for number, media in enumerate(medias)
    ]
    tapes = {
        "processed_videos": {"processed_videos/v.mp4": FILM, "EgoExo4D/v.mp4": FILM},
        "processed_frames": {"processed_frames/a/1.jpg": IMAGE},
    }
    packed = {name: tape(files, "gz") for name, files in tapes.items()}
    return {
        "Heleun/EgoExoBench_MCQ": {"EgoExoBench_MCQ.tsv": lines(rows)},
        "onlyfaces/EgoExoBench": {
            f"{name}.tar.gz.part_{part}": data
            for name, whole in packed.items()
            for part, data in (("aa", whole[:50]), ("ab", whole[50:]))
        },
    }
