"""Rows of datasets of videos, with choices and with grades."""

from __future__ import annotations

from pytest_vlmeval.records import DatasetInfo
from tests.support.sandbox_tables import Row

CHOICES = DatasetInfo(
    name="Video-MME_0.5fps",
    class_name="VideoMME",
    module="videomme",
    kind="multiple_choice",
    modality="video",
    settings={"dataset": "Video-MME", "fps": 0.5},
)


GRADED = DatasetInfo(
    name="MMBench-Video",
    class_name="MMBenchVideo",
    module="mmbench_video",
    kind="vqa",
    modality="video",
    judge="required",
)


def choice_rows() -> list[Row]:
    """Give three questions of Video-MME."""
    return [
        {
            "index": index,
            "video": "one",
            "video_path": "./video/one.mp4",
            "duration": ("short", "short", "long")[index],
            "domain": "Knowledge",
            "candidates": "['A. Red apples.', 'B. Green.', 'C. Blue.', 'D. White.']",
            "sub_category": "Law",
            "task_type": "OCR Problems",
            "subtitle_path": "",
            "question": f"Question {index}?",
            "answer": "ABA"[index],
        }
        for index in range(3)
    ]


def graded_rows() -> list[Row]:
    """Give three questions about two videos of MMBench-Video."""
    return [
        {
            "index": index,
            "video": video,
            "video_path": f"./video/{video}.mp4",
            "video_type": "shorts",
            "question": f"Question {index}?",
            "answer": "a box",
            "dimensions": "['OCR', 'Counting']",
        }
        for index, video in enumerate(("red", "red", "blue"))
    ]
