"""Classes of questions about space in videos (dataset/vsibench.py)."""

from __future__ import annotations

from tests.support.schemas import Schema, by_number, several

VIDEO = "a.mp4"

SCHEMAS = (
    Schema(
        class_name="VsiSuperRecall",
        dataset="VsiSuperRecall_10mins_128frame",
        rows=several(
            ["A", "B", "C", "D"],
            options="['A. red', 'B. blue', 'C. green', 'D. grey']",
            question_type=["recall_10mins", "recall_10mins", "other", "other"],
            video=VIDEO,
        ),
        answers=by_number("A", "A", "The answer is C.", "Hm"),
        expects={
            "overall": 50,
            "recall_10mins_accuracy": 50,
            "other_accuracy": 50,
        },
    ),
    Schema(
        class_name="VsiSuperCount",
        dataset="VsiSuperCount_10mins_128frame",
        rows=several(
            ["10", "10", "4", "4"],
            question_type=["count_10mins", "count_10mins", "other", "other"],
            video=VIDEO,
        ),
        answers=by_number("10", "100", "There are 4 of them", "many"),
        expects={
            "overall": 50,
            "count_10mins_MRA:.5:.95:.05": 50,
            "other_MRA:.5:.95:.05": 50,
        },
    ),
    Schema(
        class_name="VsiBench",
        dataset="VSI-Bench_128frame",
        rows=several(
            ["A", "B", "2.0", "4"],
            candidates="['A. red', 'B. blue']",
            question_type=[
                "object_rel_distance",
                "object_rel_distance",
                "object_size_estimation",
                "object_counting",
            ],
            video=VIDEO,
        ),
        answers=by_number("A", "A", "It is 2.44 m", "four"),
        expects={
            "overall": 70,
            "object_rel_distance_accuracy": 50,
            "object_size_estimation_MRA:.5:.95:.05": 60,
        },
    ),
    *(
        Schema(
            class_name=class_name,
            dataset=dataset,
            rows=several(
                ["A", "B", "C", "D"],
                candidates="['A. red', 'B. blue', 'C. green', 'D. grey']",
                task_type=["first", "first", "first", "second"],
                video=VIDEO,
            ),
            answers=by_number("A", "D", "The answer is C.", "Hm"),
            expects={"overall": 50, "second_accuracy": 0},
        )
        for class_name, dataset in (
            ("DSRBench", "DSRBench_64frame"),
            ("STIBench", "STI-Bench_64frame"),
        )
    ),
)
