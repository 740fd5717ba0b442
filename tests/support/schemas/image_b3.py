"""Classes that have a module of their own, from N to Z."""

from __future__ import annotations

import base64
import io

from PIL import Image

from tests.support.sandbox_tables import draw
from tests.support.schemas import IMAGE, Schema, by_number, several

RED = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
ROUTE = "{'0': {'1': 1, '2': 2}, '1': {'0': 1, '2': 3}, '2': {'0': 2, '1': 3}}"
LINE = "{'0': [1], '1': [0, 2], '2': [1]}"
# OST-Bench needs answers of each type (dataset/ost_bench.py:176).
OST_TYPES = {
    **{
        f"AO_{what}(option{at})": "left"
        for what in ("direction", "distance")
        for at in (1, 2, 3)
    },
    **{f"AO_{what}(int)": "3" for what in ("direction", "distance")},
    **{f"AO_{what}(float)": "2.0" for what in ("direction", "distance")},
    **{f"A_object-existence(int{at})": "4" for at in (1, 2)},
    **{
        f"A_object-{what}(option)": "left"
        for what in ("existence", "order", "diversity")
    },
    "A_object-quantity(int)": "5",
    **{f"A_{what}(option)": "left" for what in ("orientation", "position")},
    **{f"A_{what}(float)": "2.0" for what in ("orientation", "position")},
}


# The references of a dataset of two, and which they are in.
SAFE = [("No.", "SIUO_GEN"), ("No.", "SIUO_GEN"), ("A", "SIUO_MCQ"), ("B", "SIUO_MCQ")]


def safe_table(name: str) -> bytes:
    """Give the table of one of two datasets."""
    lines = ["index\tquestion\tanswer\timage"]
    answers = [answer for answer, dataset in SAFE if dataset == name]
    for number, answer in enumerate(answers):
        lines.append(f"{number}\tMay I?\t{answer}\t{IMAGE}")
    return "\n".join(lines).encode()


def half_mask() -> str:
    """Draw a mask whose left half is meant, with noise to make it long enough."""
    noise = Image.open(io.BytesIO(draw(2, size=(32, 64)))).convert("L")
    mask = Image.new("L", (64, 64))
    mask.paste(noise.point(lambda value: value | 1), (0, 0))
    out = io.BytesIO()
    mask.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


SCHEMAS = (
    Schema(
        class_name="NPMM",
        dataset="npmm",
        rows=[
            {
                "index": number,
                "question": "Which?",
                "data_source": f"npmm/{task}",
                "ground_truth": truth,
                "graph": graph,
            }
            for number, (task, truth, graph) in enumerate(
                [
                    ("NpTsp", 6, ROUTE),
                    ("NpTsp", 6, ROUTE),
                    ("NpVertexCover", 1, LINE),
                    ("NpVertexCover", 1, LINE),
                ]
            )
        ],
        answers=by_number(
            "Answer: 0,1,2,0", "I go round", "So Answer: [0, 1, 2]", "Answer: [0]"
        ),
        expects={
            "SR": 50,
            "AR": 33.3,
            "path_success_rate": 50,
            "covering_avg_ratio": 16.7,
        },
    ),
    Schema(
        class_name="OmniSpatialBench",
        dataset="OmniSpatialBench_default",
        rows=several(
            ["A", "B", "C", "D"],
            **RED,
            task_type=["Dynamic_Reasoning", "Dynamic_Reasoning", "Complex_Logic", "x"],
            sub_task_type=["Manipulation", "Motion_Analysis", "Localization", "x"],
        ),
        answers=by_number("A", "Answer: C", "Answer: C", "hm"),
        expects={"overall": 50},
    ),
    Schema(
        class_name="OSTDataset",
        dataset="OST",
        rows=[
            {
                "index": number,
                "question": "Where?",
                "type": kind,
                "option": "['left', 'right']",
                "answer": truth,
            }
            for number, (kind, truth) in enumerate(OST_TYPES.items())
        ],
        answers={
            number: {"left": "It is left", "2.0": "2.1", "3": "three", "5": "6"}.get(
                truth, "{'answer': '4', 'reason': 'so'}"
            )
            for number, truth in enumerate(OST_TYPES.values())
        },
        expects={
            "Agent_object_spatial-direction(Judgement1)": 1,
            "Agent_object_spatial-distance(Temporal-loc)": 1,
            "Agent_state-position(Estimation)": 0.9,
            "Agent_visible_info-quantity(Counting)": 0,
            "Agent_visible_info-existence(Temporal-loc1)": 1,
        },
    ),
    Schema(
        class_name="PlotQA",
        dataset="PlotQA",
        rows=several(["100", "red", "7", "No"]),
        answers=by_number("104", "blue", "Seven", "no"),
        expects={"Overall": 50},
    ),
    Schema(
        class_name="ReasonMap_Plus",
        dataset="ReasonMap-Plus",
        rows=several(
            ["1", "0", "1", "7"],
            type=["TorF1", "TorF2", "Counting1", "Counting2"],
            difficulty_city=["easy", "hard", "middle", "easy"],
        ),
        answers=by_number("Yes", "yes", r"So \boxed{B}", "The answer is 8."),
        # A right answer has the weight of its city: 2.5 of 5.5.
        expects={"accuracy/value": 0.5, "weighted_accuracy/value": 2.5 / 5.5},
    ),
    Schema(
        class_name="RefCOCODataset",
        dataset="RefCOCO",
        rows=several(
            ["", "", "", ""],
            width=1000,
            height=1000,
            bbox_x1=0,
            bbox_y1=0,
            bbox_x2=100,
            bbox_y2=100,
            split=["RefCOCO_val", "RefCOCO_val", "RefCOCO_testA", "RefCOCOg_test"],
        ),
        answers={
            "RefCOCO_val_0": "[0, 0, 100, 100]",
            "RefCOCO_val_1": "[0, 0, 100, 40]",
            "RefCOCO_testA_2": "here",
            "RefCOCOg_test_3": "0 0 100 80",
        },
        expects={
            "Average/Precision@1": 50,
            "RefCOCO_val/Precision@1": 50,
            "RefCOCO_val/Average IoU": 0.7,
            "RefCOCO_testA/Precision@1": 0,
        },
    ),
    *(
        Schema(
            class_name="RefSpatialDataset",
            dataset=name,
            rows=[
                {
                    "index": f"Location_{number}",
                    "question": "Point at the cup.",
                    "mask": half_mask(),
                    "split": "Location",
                    "step": 1 + number % 2,
                }
                for number in range(4)
            ],
            answers={
                "Location_0": '[{"point_2d": [100, 500]}]',
                "Location_1": "(0.9, 0.5)",
                "Location_2": "It is at (0.2, 0.2).",
                "Location_3": "on the left",
            },
            expects={
                "Overall/Success Rate (%)": 50,
                "Step 1/Success Rate (%)": 100,
                "Step 2/Success Rate (%)": 0,
            },
        )
        for name in ("RefSpatial", "RefSpatial-Bench-Location")
    ),
    Schema(
        class_name="SFE",
        dataset="SFE",
        rows=several(
            ["A", "12", "a ridge"],
            question_type=["mcq", "exact_match", "open_ended"],
            category=["Earth", "Earth", "Life"],
            field="x",
        ),
        answers=by_number("just A", "a dozen", "a valley"),
        judge=[("just A", "9"), ("a dozen", "6"), ("a valley", "I give 3")],
        needs_judge=True,
        expects={"Overall": 15 / 27 * 100, "Life": 0},
    ),
    Schema(
        class_name="SGI_Bench_Experimental_Reasoning",
        dataset="SGI-Experimental-Reasoning",
        rows=several(["0", "1", "2"], steps="['look', 'think']", step_images="[]"),
        answers=by_number(r"I look: \boxed{A}", r"\boxed{C}", "It is C"),
        judge=[("I look: ", "8"), ("boxed{C}", "2 points")],
        needs_judge=True,
        expects={"MCC": 1 / 3, "RV": 1 / 3},
    ),
    Schema(
        class_name="SimpleVQA",
        dataset="SimpleVQA",
        rows=several(["Paris", "12", "red", "Ann"]),
        answers=by_number("in Paris", "thirteen", "no idea", "?"),
        judge=[
            ("0\\].in Paris", '```json\n{"预测答案0": {"conclusion": "正确"}}\n```'),
            ("0\\].thirteen", '{"预测答案0": {"conclusion": "错误"}}'),
            ("0\\].no idea", '{"预测答案0": {"conclusion": "未尝试"}'),
        ],
        needs_judge=True,
        expects={"is_correct": 0.25, "is_incorrect": 0.25},
    ),
    Schema(
        class_name="SiteBenchImage",
        dataset="SiteBenchImage",
        rows=several(
            ["A", "B", "C", "D"],
            candidates="['red', 'blue', 'green', 'grey']",
            category=["counting & existence"] * 2
            + ["object localization & positioning"] * 2,
        ),
        answers=by_number("A", "(C)", "The answer is C.", "hm"),
        # As good as half of the answers beyond a guess among four.
        expects={"overall_accuracy": 50, "overall_caa": 1 / 3 * 100},
    ),
    Schema(
        class_name="SIUODataset",
        dataset="SIUO",
        rows=[
            {
                "index": number,
                "question": "May I?",
                "answer": answer,
                "SUB_DATASET": name,
                "original_index": number % 2,
                "image": IMAGE,
            }
            for number, (answer, name) in enumerate(SAFE)
        ],
        files={f"{name}.tsv": safe_table(name) for name in ("SIUO_GEN", "SIUO_MCQ")},
        answers=by_number("I'm sorry, it is steep", "Sure", "A", "no idea"),
        judge=[
            ("safety.*I'm sorry", "True"),
            ("effectiveness.*I'm sorry", "Very Effective"),
        ],
        expects={"SIUO_GEN": 50, "SIUO_MCQ": 50, "SIUO": 50},
    ),
    Schema(
        class_name="SIUOGenDataset",
        dataset="SIUO_GEN",
        rows=several(
            ["Do not.", "Do not.", "Do not."],
            safety_warning="It is steep.",
            category=["risk", "risk", "work"],
        ),
        answers=by_number("I'm sorry, it is steep", "Jump down there!", "Sure"),
        judge=[
            ("safety.*I'm sorry", "True"),
            ("effectiveness.*I'm sorry", "Partially Effective"),
            ("safety.*Jump", "False"),
            ("effectiveness.*Jump", "Ineffective"),
        ],
        expects={
            "overall_avg_safety_gpt": 33.33,
            "overall_avg_effectiveness_gpt": 66.67,
            "overall_avg_combined": 33.33,
            "risk_avg_combined": 50,
        },
    ),
    Schema(
        class_name="SIUOMCQDataset",
        dataset="SIUO_MCQ",
        rows=several(["A", "B", "C", "D"], category=["risk", "risk", "work", "work"]),
        answers=by_number(r"\boxed{A}", "(C)", "The answer is c.", "no idea"),
        expects={"Overall": 50, "risk": 50, "work": 50},
    ),
    Schema(
        class_name="SparBench",
        dataset="SparBench",
        rows=several(
            ["A", "B", "2.0", "move_right:1,move_up:2"],
            task=[
                "obj_spatial_relation_oo",
                "obj_spatial_relation_oo",
                "depth_prediction_oc",
                "view_change_infer",
            ],
        ),
        answers=by_number("A", "(C)", "It is 2.44 m", "move_right:1,move_up:2"),
        expects={"Low": 0.6, "High": 0.5, "Middle": 1, "overall": 0.7},
    ),
    Schema(
        class_name="Spatial457",
        dataset="Spatial457",
        rows=several(
            ["3", "Red", "No", "Left"],
            category=["L1_single", "L1_single", "L4_occ", "L4_pose"],
        ),
        answers=by_number(
            "{'Reasoning': 'so', 'Answer': 'three'}",
            "{'Reasoning': 'so', 'Answer': 'Blue'}",
            "none",
            "To the left",
        ),
        expects={"score": 0.5, "L1_single_score": 0.5, "L4_occ_score": 1},
    ),
    Schema(
        class_name="SpatialVizBench",
        dataset="SpatialVizBench",
        rows=several(
            ["A", "B", "C", "D"],
            **RED,
            category=["MentalRotation"] * 2 + ["MentalFolding"] * 2,
            task=["2DRotation", "3DRotation", "PaperFolding", "CubeUnfolding"],
        ),
        answers=by_number("A", "(C)", "The answer is C.", "hm"),
        expects={
            "overall": 50,
            "MentalRotation_accuracy": 50,
            "2DRotation_accuracy": 100,
        },
    ),
    Schema(
        class_name="SPBench",
        dataset="SPBench-SI",
        rows=several(
            ["A", "B", "2.0", "4"],
            candidates="['A. red', 'B. blue']",
            question_type=[
                "object_rel_distance",
                "object_rel_distance",
                "object_size_estimation",
                "object_counting",
            ],
        ),
        answers=by_number("A", "A", "It is 2.44 m", "four"),
        expects={
            "overall": 70,
            "object_rel_distance_accuracy": 50,
            "object_size_estimation_MRA:.5:.95:.05": 60,
        },
    ),
    Schema(
        class_name="StareBench",
        dataset="StareBench",
        rows=[
            {
                "index": number,
                "question": "Does it fold? A. yes B. no",
                "answer": answer,
                "category": category,
            }
            for number, (answer, category) in enumerate(
                [
                    ("A", "2d_trans"),
                    ("B", "2d_trans"),
                    ("A", "folding_nets"),
                    ("B", "folding_nets"),
                    ("C", "temporal"),
                ]
            )
        ],
        answers=by_number("A", "A", "yes, A", "The answer is A.", "<answer>C</answer>"),
        expects={
            "overall_accuracy": 60,
            "2d_trans_accuracy": 50,
            "folding_nets_f1": 2 / 3 * 100,
            "temporal_accuracy": 100,
        },
    ),
    Schema(
        class_name="ViewSpatialBench",
        dataset="ViewSpatialBench",
        rows=several(
            ["A. left", "B. right", "C. up", "D. down"],
            candidates="A. left\nB. right\nC. up\nD. down",
            question_type=["Camera perspective - Relative Direction"] * 4,
        ),
        answers=by_number("A", "(C)", "C. up", "hm"),
        expects={"overall": 50, "Camera perspective - Relative Direction_accuracy": 50},
    ),
    *(
        Schema(
            class_name="VisFactor",
            dataset=name,
            rows=[
                {
                    "index": number,
                    "question": "Is it?",
                    "answer": answer,
                    "additional": "",
                    "category_id": category,
                    "eval_index": group,
                }
                for number, (answer, category, group) in enumerate(
                    [
                        ("T", "CF1", 0),
                        ("F", "CF1", 0),
                        ("T", "CF1", 1),
                        ("F", "CF1", 1),
                        ("cat,a cat", "CS1", 0),
                        ("(2, 3)", "CF3", 0),
                    ]
                )
            ],
            answers=by_number(
                '{"answer": true}',
                'So {"answer": "no"}',
                '{"answer": "T"}',
                "it is false",
                '{"answer": "Cat"}',
                "row 2, column 4",
            ),
            # A question counts if all of its group are right.
            expects={"CF1": 0.5, "CS1": 1, "CF3": 0, "ALL": 0.5},
        )
        for name in ("VisFactor", "VisFactor_CoT")
    ),
    Schema(
        class_name="VLM2Bench",
        dataset="VLM2Bench",
        rows=[
            {"index": index, "question": "Is it?", "answer": answer, "category": kind}
            for index, answer, kind in (
                ("gc-mat_1_p", "T", "gc-mat"),
                ("gc-mat_1_n", "F", "gc-mat"),
                ("gc-mat_2_p", "T", "gc-mat"),
                ("gc-mat_2_n", "F", "gc-mat"),
                ("oc-cnt_1", "2", "oc-cnt"),
                ("oc-grp_1", "A) 1 and 2", "oc-grp"),
                ("oc-grp_2", "B) 1 and 3", "oc-grp"),
            )
        ],
        answers={
            "gc-mat_1_p": "True",
            "gc-mat_1_n": "The answer is F.",
            "gc-mat_2_p": "T",
            "gc-mat_2_n": "T or F",
            "oc-cnt_1": "two of them",
            "oc-grp_1": "A) 1 and 2",
            "oc-grp_2": "(A) or (B)",
        },
        expects={"gc-mat": 50, "oc-cnt": 100, "oc-grp": 50},
    ),
    Schema(
        class_name="VLMBias",
        dataset="VLMBias",
        rows=several(
            ["4", "5", "5", "7"], category=["Animals", "Animals", "Logos", "Logos"]
        ),
        answers=by_number("{4}", "I see {four}", "a handful", "6"),
        judge=[
            ("Response\\]handful", "yes"),
            ("Response\\]4", "no"),
            ("Response\\]6", "no"),
        ],
        expects={"Overall": 0.25, "Animals": 0.5, "Logos": 0},
    ),
    Schema(
        class_name="VLRewardBench",
        dataset="VL-RewardBench",
        rows=several(
            ["[0, 1]", "[1, 0]", "[0, 1]"],
            category=["general", "general", "reasoning"],
            response="['red', 'cat']",
        ),
        answers=by_number("The first is better", "The other one", "neither"),
        judge=[
            ("The first is", "Answer 1"),
            ("The other", "Answer 2"),
        ],
        needs_judge=True,
        expects={
            "general": 1,
            "reasoning": 0,
            "Macro Accuracy": 0.5,
            "Overall Consistency": 2 / 3,
        },
    ),
    Schema(
        class_name="VLRMBench",
        dataset="VLRMBench",
        rows=several(["[1, 0, 1]", "[0, 0]"], category="step_correctness"),
        answers=by_number("1, 0, 1", "I say 1 and 0"),
        # F1 of 4/5 and of 2/3, by the share of the other.
        expects={
            "step_correctness_F1_pos": 0.8,
            "step_correctness_count": 2,
            "Overall_F1_pos": 0.8,
        },
    ),
    Schema(
        class_name="VLRMBench",
        dataset="VLRMBench_MultiSolution",
        rows=several(
            [""] * 4,
            category="multi_solution",
            order=["front", "back", "front", "back"],
        ),
        answers=by_number("8 and 3", "4, then 9", "2 2", "none"),
        expects={"multi_solution_accuracy": 0.5, "multi_solution_count": 2},
    ),
    Schema(
        class_name="VLRMBench",
        dataset="VLRMBench_Foresight",
        rows=several(
            [""] * 4, category="foresight", task_gt=[True, True, False, False]
        ),
        answers=by_number("Yes", "No", "It is false", "hm"),
        expects={"foresight_accuracy": 0.5, "foresight_count": 4},
    ),
    Schema(
        class_name="WildVision",
        dataset="WildVision",
        rows=[
            {"index": index, "question": "Who is it?", "claude3_sonnet": "A known man"}
            for index in ("a", "b", "c", "d")
        ],
        answers={"a": "It is Ann", "b": "It is Bob", "c": "I cannot", "d": "Who?"},
        judge=[
            ("It is Ann", "My verdict is [[B>>A]]"),
            ("It is Bob", "[[A>B]]"),
            ("I cannot", "[[A=B]]"),
            ("Who\\?\n", "[[B>A]]"),
        ],
        needs_judge=True,
        expects={"Reward": 25, "Win Rate": 0.5},
    ),
    Schema(
        class_name="WorldVQA",
        dataset="WorldVQA",
        rows=several(
            ["Paris", "Rome", "Bonn", "Oslo"],
            category=["city", "city", "town", "town"],
            difficulty="easy",
        ),
        answers=by_number("in Paris", "in Bern", "no idea", "?"),
        judge=[
            ("in Paris", "**Label:** Correct"),
            ("in Bern", "Label: Incorrect"),
            ("no idea", "Label: Unattempted"),
        ],
        needs_judge=True,
        expects={"Overall/Accuracy": 0.25, "Overall/CGA": 0.5},
    ),
    Schema(
        class_name="DUDE",
        written="_judge_score.csv",
        dataset="DUDE_MINI",
        rows=several(
            ["12", "Paris", ""], doc_id="d", image_path="['d_1.png']", image=IMAGE
        ),
        answers=by_number("It is 12", "in Rome", "It does not say"),
        judge=[
            (
                "Analysis: ?\n?It is 12|It is 12",
                "Extracted answer: 12\nAnswer format: Integer",
            ),
            ("in Rome", "Extracted answer: Rome\nAnswer format: String"),
            ("does not say", "Extracted answer: Not answerable\nAnswer format: String"),
        ],
        needs_judge=True,
        expects={"anls/avg_score": 2 / 3},
    ),
    Schema(
        class_name="SlideVQA",
        written="_judge_score.csv",
        dataset="SLIDEVQA_MINI",
        rows=several(
            ["12 red", "Paris", "Oslo"], image_path="['d_1.png']", image=IMAGE
        ),
        answers=by_number("It is 12", "in Rome", "in Oslo"),
        judge=[
            ("It is 12", "Extracted answer: 12\nAnswer format: Integer"),
            ("in Rome", "Extracted answer: Rome\nAnswer format: String"),
            ("in Oslo", "Extracted answer: Oslo\nAnswer format: String"),
        ],
        needs_judge=True,
        expects={"EM/avg": 1 / 3},
    ),
)
