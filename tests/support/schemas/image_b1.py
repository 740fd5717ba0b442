"""Classes that have a module of their own, from A to E."""

from __future__ import annotations

from tests.support.schemas import Schema, by_number, several

RED = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
CMMMU_FIELDS = [
    "技术与工程",
    "科学",
    "健康与医学",
    "商业",
    "艺术与设计",
    "人文社会科学",
]
# What CharXiv's grader is asked: the table brings its prompt.
GRADED = "Is {PREDICTION} a good answer?"


def in_pairs(*answers: str) -> dict[object, str]:
    """Answer ChartBench's two questions about each fact."""
    return {f"{number // 2}_{number % 2}": said for number, said in enumerate(answers)}


SCHEMAS = (
    Schema(
        class_name="Asclepius",
        dataset="Asclepius",
        rows=several(["a fracture", "a cyst", "nothing", "a tumour"]),
        answers=by_number("a fracture", "a stone", "There is nothing.", "?"),
        judge=[
            ("Response: a fracture", "1"),
            ("Response: There is", "I give it a 1."),
            ("Response: a stone", "0"),
        ],
        needs_judge=True,
        expects={"Overall": 50},
    ),
    Schema(
        class_name="ChartBench",
        dataset="ChartBench",
        rows=[
            *(
                {
                    "index": f"{number // 2}_{number % 2}",
                    "question": "Is it so?",
                    "answer": ["Yes", "No"][number % 2],
                    "chart_type": ["ring", "area"][number // 4],
                    "task": "CR",
                    "QA_type": "Acc+",
                }
                for number in range(6)
            ),
            *(
                {
                    "index": f"{number}_0",
                    "question": "How many?",
                    "answer": "100",
                    "chart_type": "stock",
                    "task": "",
                    "QA_type": "NQA",
                }
                for number in range(3, 5)
            ),
        ],
        answers={
            **in_pairs("Yes", "No", "yes, it is", "yes", "Hm", "No."),
            "3_0": "104",
            "4_0": "about 101",
        },
        judge=[("about 101", "101"), ("Text: 104", "104")],
        # 3.3 without a judge: the first pair, and the number that is one.
        needs_judge=True,
        expects={"all": 60, "pie": 50, "box": 100, "area": 0, "regular": 50},
    ),
    Schema(
        class_name="ChartMuseum",
        dataset="ChartMuseum_dev",
        unnamed=True,
        rows=several(
            ["12", "Spain", "7", "red"], category=["text", "text", "visual", "visual"]
        ),
        answers=by_number(
            "<think>So</think><answer>12</answer>",
            "<answer>France</answer>",
            "I think <answer> seven",
            "red",
        ),
        judge=[
            ("12[^\n]*\n+[^\n]*12", "Yes"),
            ("seven", "Yes, they are equivalent"),
            ("France", "No"),
        ],
        needs_judge=True,
        expects={"Overall": 50, "text": 50, "visual": 50},
    ),
    Schema(
        class_name="ChartQAPro",
        dataset="ChartQAPro",
        rows=[
            {
                "index": number,
                "question": "['How many?']",
                "answer": answer,
                "question_type": kind,
                "year": year,
            }
            for number, (answer, kind, year) in enumerate(
                [
                    ("['100']", "Factoid", "['NO']"),
                    ("['2012']", "Factoid", "['YES']"),
                    ("['true']", "Fact Checking", "['NO']"),
                    ("['a']", "Multi Choice", "['NO']"),
                    ("['north', 'south']", "Conversational", "['NO', 'NO']"),
                ]
            )
        ],
        answers=by_number("104", "2013", "True.", "It must be a", "south"),
        expects={
            "Overall": 0.6,
            "Factoid": 0.5,
            "Fact Checking": 1,
            "Multi Choice": 0,
            "Conversational": 1,
        },
    ),
    Schema(
        class_name="ChartX",
        dataset="ChartX",
        rows=several(
            ["5", "10", "Name \\t Size \\n Ann \\t 3 \\n Bob \\t 4", "A chart."],
            category=["QA", "QA", "structure", "description"],
            metadata='{"title": "Sizes", "chart_type": "bar", "csv": "a"}',
        ),
        answers=by_number(
            "5", "not ten", "Name \\t Size \\n Ann \\t 3 \\n Bob \\t 9", "A fine bar"
        ),
        judge=[
            ("<answer> 5$", "Answer: True"),
            ("<answer> 5\n", "Answer: True"),
            ("not ten", "that is false"),
            ("A fine bar", "Score: 4"),
        ],
        needs_judge=True,
        expects={"QA_GPT": 0.5, "description_GPT": 4, "GPT_Overall": 5 / 3},
    ),
    Schema(
        class_name="CharXiv",
        unnamed=True,
        dataset="CharXiv_descriptive_val",
        rows=several(
            ["Time", "3", "None", "yes"], qid=[1, 1, 19, 18], grading_query=GRADED
        ),
        answers=by_number("Time", "Space", "no count", "hm"),
        judge=[
            ("Is Time", '{"extract_answer": "Time", "score": 1}'),
            ("Is Space", '{"extract_answer": "Space", "score": 0}'),
            ("Is no count", '{"extract_answer": "none", "score": 1}'),
        ],
        needs_judge=True,
        expects={
            "Information Extraction": 0.5,
            "Counting": 1,
            "Pattern Recognition": 0,
            "Overall": 0.5,
        },
    ),
    Schema(
        class_name="CharXiv",
        unnamed=True,
        dataset="CharXiv_reasoning_val",
        rows=several(
            ["3", "4"], inst_category=[3, 4], grading_query=GRADED, figure_path=""
        ),
        answers=by_number("3", "five"),
        judge=[
            ("Is 3", '{"extract_answer": "3", "score": 1}'),
            ("Is five", '{"extract_answer": "5", "score": 0}'),
        ],
        needs_judge=True,
        expects={"Number-in-Chart": 1, "Number-in-General": 0, "Overall": 0.5},
    ),
    Schema(
        class_name="CMMMU",
        dataset="CMMMU_VAL",
        rows=[
            {
                "index": number,
                "question": "哪个",
                "answer": ["B", "对", "12", "A", "错", "红色"][number],
                "type": ["选择", "判断", "填空"][number % 3],
                "category": category,
                **{
                    f"option{at}": word
                    for at, word in enumerate(["红", "蓝", "绿", "灰"], start=1)
                },
            }
            for number, category in enumerate(CMMMU_FIELDS)
        ],
        answers=by_number("B", "这是正确的", "答案是13", "C", "这是对的", "答案是红色"),
        expects={
            "总准确率": 0.5,
            **dict(zip(CMMMU_FIELDS, [1, 1, 0, 0, 0, 1], strict=True)),
        },
    ),
    Schema(
        class_name="CreationMMBenchDataset",
        dataset="LiveMMBench_Creation",
        rows=several(
            ["", ""],
            task_name=["story", "poem"],
            reference_answer_by_gpt4o=["a known story", "a known poem"],
            criteria="{'subjective': 'Write well.', 'objective': 'Be true.'}",
            ground_truth="",
        ),
        answers=by_number("a new story", "a new poem"),
        judge=[
            (
                "Be true.",
                "Response A Alignment Score: 4/10\nResponse B Alignment Score: 8/10",
            ),
            ("a known story.*a new story", "FINAL CONCLUSION: [[B>A]]"),
            ("a new story.*a known story", "FINAL CONCLUSION: [[A>>B]]"),
            ("a known poem.*a new poem", "FINAL CONCLUSION: [[A=B]]"),
            ("a new poem.*a known poem", "no conclusion"),
        ],
        needs_judge=True,
        # Better, much better the other way round, and as good.
        expects={"sub_reward": 50, "win_rate": 2 / 3 * 100, "sub_parse_ok": 0.75},
    ),
    Schema(
        class_name="DA2K",
        dataset="DA-2K",
        rows=several(
            ["point1", "point2", "point1", "point2"],
            scene_category=["indoor", "indoor", "water", "water"],
        ),
        answers=by_number("Point 1 is closer", "point1", "hm", "I say: point2"),
        expects={
            "overall": 0.5,
            "by_category/indoor": 0.5,
            "by_category/water": 0.5,
        },
    ),
    Schema(
        class_name="Dynamath",
        dataset="DynaMath",
        rows=[
            {
                "index": number,
                "question": "What is it?",
                "answer": ["A", "1.5", "yes", "A", "2.5", "no"][number],
                "answer_type": ["multiple choice", "float", "text"][number % 3],
                "subject": ["algebra", "geometry", "logic"][number % 3],
                "knowledge_level": "high school",
                "qid": number % 3,
                "varid": 1 + number // 3,
            }
            for number in range(6)
        ],
        answers=by_number(
            '{"solution": "so", "short answer": "A"}',
            '{"solution": "so", "short answer": "1.5"}',
            '{"solution": "so", "short answer": "yes"}',
            "B",
            "it is about two and a half",
            "No",
        ),
        judge=[("two and a half", "2.500")],
        # In the worst case a question is right in both of its variants.
        expects={"Average/Overall": 2 / 3, "Worst Case/Overall": 1 / 3},
    ),
    Schema(
        class_name="EmbSpatialBench",
        dataset="EmbSpatialBench",
        rows=several(
            ["A", "B", "C", "D"],
            **RED,
            data_source=["mp3d", "mp3d", "ai2thor", "scannet"],
        ),
        answers=by_number("A", "The answer is C.", "<answer>C. green</answer>", "hm"),
        judge=[("Begin>\nA\n<C", "A\tA"), ("answer is C", "B\tC"), ("green<", "A\tC")],
        expects={
            "overall": 50,
            "mp3d_accuracy": 50,
            "ai2thor_accuracy": 100,
            "scannet_accuracy": 0,
        },
    ),
    Schema(
        class_name="EMMADataset",
        dataset="EMMA",
        rows=several(
            ["A", "12", "B", "7"],
            A=["red", "", "red", ""],
            B=["blue", "", "blue", ""],
            category=["Math", "Math", "Physics", "Physics"],
            type=["Multiple Choice", "Open-ended"] * 2,
            context="",
        ),
        answers=by_number("A", "a dozen", "A", "eight"),
        judge=[
            ("a dozen", "[Begin Correctness]yes[End Correctness]"),
            ("eight", "[Begin Correctness]no[End Correctness]"),
        ],
        needs_judge=True,
        expects={"Overall": 0.5, "Math": 1, "Physics": 0},
    ),
    Schema(
        class_name="ERIQBench",
        dataset="ERIQ",
        rows=several(
            ["A", "B", "C", "D"],
            question_raw="Which?",
            **RED,
            task_type=["QA_TASK_PROGRESS"] * 2 + ["QA_HUMAN_INTENTION"] * 2,
        ),
        answers=by_number("A", "(C)", "The answer is C.", "hm"),
        expects={
            "overall": 50,
            "QA_TASK_PROGRESS_accuracy": 50,
            "QA_HUMAN_INTENTION_accuracy": 50,
        },
    ),
    Schema(
        class_name="ERQADataset",
        dataset="ERQA",
        rows=several(
            ["A", "B", "C", "D"], category=["Pointing", "Pointing", "State", "State"]
        ),
        answers=by_number("A", "A", "c ", "The answer is D."),
        expects={"Overall/Accuracy (%)": 50, "Pointing/Accuracy (%)": 50},
    ),
)
