"""Classes of vlmeval.dataset.image_mcq."""

from __future__ import annotations

from tests.support.schemas import IMAGE, Schema, by_number, several

OPTIONS = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
JUDGE = (("hard to say", "D"), ("no idea", "Z"))
# Right, wrong, right in many words, and two that name no option: the judge reads the
# first of those.
ANSWERS = by_number("A", "C", "The answer is (C).", "It is hard to say", "no idea")
REFERENCES = ["A", "B", "C", "D", "A"]


def choices(class_name: str, dataset: str) -> Schema:
    """Give a schema of a class that has questions with options and two categories."""
    return Schema(
        class_name=class_name,
        dataset=dataset,
        rows=several(REFERENCES, **OPTIONS, category=["x", "x", "y", "y", "y"]),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"Overall": 0.4, "x": 0.5, "y": 1 / 3},
    )


LISTED = "(A) red (B) blue (C) green (D) grey (E) white"
REAL_WORLD = [
    "Perception/Monitoring",
    "Perception/Monitoring",
    "Perception/OCR with Complex Context",
    "Reasoning/Autonomous_Driving",
    "Reasoning/Diagram and Table",
]
VMC = """SEEDBench MMStar A-OKVQA VizWiz MMVet VQAv2 OKVQA MMMU MathVista ScienceQA
RealWorldQA GQA MathVision TextVQA OCRVQA AI2D ChartQA DocVQA InfoVQA
TableVQABench""".split()
PUZZLES = """grid_number size_grid rectangle_height_color shape_size_hexagon
rectangle_height_number shape_reflect circle_size_number polygon_sides_color
color_overlap_squares color_size_circle venn size_cycle polygon_sides_number
shape_size_grid color_hexagon grid_number_color color_grid shape_morph triangle
color_number_hexagon""".split()
LOGIC = [
    f"{kind} Reasoning"
    for kind in ("Quantitative", "Spatial", "Positional", "Attribute", "Stylistic")
] + ["Other"]
CONCEPTS = ["Axial Symmetry", "Translation", "Rotation"]


def natural_pairs() -> list[dict[str, object]]:
    """Give all questions there are: the class wants just as many."""
    return [
        {
            "index": number,
            "question": "Is it?" if number % 8 < 4 else "Which? A: red B: blue",
            "answer": ["Yes", "No"][number % 4 in (1, 2)],
            "type": "yes_no" if number % 8 < 4 else "multiple_choice",
            # The image of another row.
            "image": 0 if number else IMAGE,
        }
        for number in range(7600)
    ]


def natural_answers() -> dict[object, str]:
    """Answer one group right, one wrong in half, one not at all, and so on."""
    right = ["Yes", "No, it is not", "no", "yes."]
    letters = ["A", "B", "B", "(A)"]
    answers: dict[object, str] = {}
    for number in range(7600):
        group, place = divmod(number, 4)
        said = (right if group % 2 == 0 else letters)[place]
        if group % 5 == 1:
            said = "A" if group % 2 else "yes"
        elif group % 5 == 2:
            said = "hard to say"
        answers[number] = said
    return answers


def steps(count: int, number: int) -> list[dict[str, object]]:
    """Give a question of several steps, and each of them by itself."""
    keys = [f"{count}steps_{step + 1}" for step in range(count)]
    return [
        {
            "index": 10 * number + place,
            "question": "Which?",
            **OPTIONS,
            "answer": "A",
            "ID": number,
            "key": key,
            "split": "testmini",
            "knowledge concept": CONCEPTS[place % 3],
        }
        for place, key in enumerate([*keys, f"{count}steps_multi"])
    ]


SCHEMAS = (
    Schema(
        class_name="MMMUProDataset",
        dataset="MMMU_Pro_10c",
        rows=several(
            REFERENCES,
            **OPTIONS,
            category=["Art", "Art", "Math", "Math", "Math"],
            split="test",
        ),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"test/Overall": 0.4, "test/Art": 0.5, "test/Math": 1 / 3},
    ),
    Schema(
        class_name="MMMUProDataset",
        dataset="MMMU_Pro_V_COT",
        rows=several(REFERENCES, **OPTIONS, split="test"),
        answers=by_number(
            "First A, then B.\nAnswer: A",
            "Answer: A",
            "Answer: C, green",
            "Answer: hard to say",
            "Answer: A\nAnswer: B",
        ),
        judge=JUDGE,
        expects={"test/Overall": 0.4},
    ),
    *(
        choices(class_name, dataset)
        for class_name, dataset in (
            ("MedXpertQA_MM_test", "MedXpertQA_MM_test"),
            ("MUIRDataset", "MUIRBench"),
            ("CVQA", "CVQA_EN"),
            ("MSEarthMCQ", "MSEarthMCQ"),
            ("MicroBench", "MicroBench"),
            ("OmniMedVQA", "OmniMedVQA"),
            ("SCAM", "SCAM"),
            ("TDBench", "tdbench_cs_zoom"),
            ("TDBench", "tdbench_rot90"),
        )
    ),
    Schema(
        class_name="GMAIMMBenchDataset",
        dataset="GMAI-MMBench_VAL",
        rows=several(
            REFERENCES,
            **OPTIONS,
            category=["x", "x", "y", "y", "y"],
            split="VAL",
            **{
                "clinical vqa task": ["DD", "DD", "BVR", "BVR", "BVR"],
                "department": "Urology",
                "perceptual granularity": ["image", "box", "box", "mask", "image"],
            },
        ),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"VAL/Overall": 0.4, "VAL/x": 0.5},
    ),
    Schema(
        class_name="MMERealWorld",
        dataset="MME-RealWorld",
        rows=several(
            ["A", "B", "C", "D", "E"],
            category=REAL_WORLD,
            **{
                "multi-choice options": LISTED,
                "l2-category": ["vehicle/Color", "person/attribute/A", *"xyz"],
            },
        ),
        answers=by_number(
            "A",
            "The best answer is C",
            "<think>A or B</think><answer>c</answer>",
            "it is not clear to anybody who looks at it from very far away",
            "(E) white",
        ),
        expects={"Overall": 0.6, "Perception/Avg": 2 / 3, "Reasoning/Avg": 0.5},
    ),
    Schema(
        class_name="MMERealWorld",
        dataset="MME-RealWorld-CN",
        rows=several(
            ["A", "B", "C", "D", "E"],
            category=REAL_WORLD,
            **{"multi-choice options": LISTED, "l2-category": "颜色"},
        ),
        answers=by_number("A", "A", "C", "d", "答案是 E"),
        expects={"Overall": 0.8, "Reasoning/Avg": 1.0},
    ),
    Schema(
        class_name="CVBench",
        dataset="CV-Bench-2D",
        rows=several(
            REFERENCES,
            **OPTIONS,
            prompt="Which?",
            category="Count",
            source=["ADE20K", "ADE20K", "COCO", "COCO", "COCO"],
            split="2D",
        ),
        answers=ANSWERS,
        judge=JUDGE,
        # The mean of both sources.
        expects={"2D/Overall": (0.5 + 1 / 3) / 2, "2D/ADE20K": 0.5},
    ),
    Schema(
        class_name="CVBench",
        dataset="CV-Bench-3D",
        rows=several(
            REFERENCES,
            **OPTIONS,
            prompt="Which?",
            category=["Depth", "Depth", "Distance", "Distance", "Distance"],
            source="Omni3D",
            split="3D",
        ),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"3D/Overall": 0.4, "3D/Depth": 0.5},
    ),
    Schema(
        class_name="HRBenchDataset",
        dataset="HRBench4K",
        rows=several(
            REFERENCES,
            **OPTIONS,
            category=["single", "cross", "single", "cross", "single"],
            cycle_category=["0", "0", "1", "1", "1"],
        ),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"Average/all/accuracy": (1 / 2 + 1 / 3) / 2, "1/cross/accuracy": 0.0},
    ),
    Schema(
        class_name="NaturalBenchDataset",
        dataset="NaturalBenchDataset",
        rows=natural_pairs(),
        answers=natural_answers(),
        # Of five groups three are right, one is half right, one has no answers.
        expects={"Acc": 0.7, "G_Acc": 0.6, "Q_Acc": 0.6, "I_Acc": 0.6},
    ),
    Schema(
        class_name="WeMath",
        dataset="WeMath",
        rows=[
            *steps(2, 1),
            *steps(2, 2),
            *steps(2, 3),
            *steps(3, 4),
            *steps(3, 5),
            *steps(3, 6),
        ],
        answers={
            10: "A", 11: "Answer: A", 12: "A",
            20: "B", 21: "A", 22: "<Answer>: A",
            30: "A", 31: "A", 32: "It is hard to say",
            40: "A", 41: "A", 42: "A", 43: "<Thought>: so. <Answer>: <<A>>",
            50: "B", 51: "B", 52: "B", 53: "B",
            60: "A", 61: "B", 62: "A", 63: "no idea",
        },
        judge=[("hard to say", "A"), ("no idea", "Z")],
        expects={
            # One generalizes too little, one is learned by rote, two lack knowledge.
            "Score (Strict)": round((525 - 0.5 - 1 - 2) / 525 * 100, 2),
            "One-step(S1)": 66.67,
            "Three-step(S3)": 33.33,
        },
    ),
    Schema(
        class_name="VMCBenchDataset",
        dataset="VMCBench_DEV",
        rows=several(["ABCD"[n % 4] for n in range(20)], **OPTIONS, category=VMC),
        answers={
            **dict(enumerate("ABCDABCDABCDDCBADCBA")),
            0: "(A) and not (B), so (A).",
            1: "I would say that it is blue in all of its parts",
            13: "A, or rather B",
        },
        expects={"Overall": 65.0, "General": 100.0, "Doc & Chart": 0.0},
    ),
    Schema(
        class_name="LEGO",
        dataset="LEGO",
        rows=several(
            ["A", "B", "C", "D", "BACD"],
            **OPTIONS,
            category=["height", "height", "rotation", "rotation", "ordering"],
            question_type=["multiple-choice"] * 4 + ["sort"],
        ),
        answers=by_number("A", "C", "(C)", "It is hard to say", "First B, BACD."),
        judge=JUDGE,
        expects={"Overall": 0.6, "height": 0.5, "ordering": 1.0},
    ),
    Schema(
        class_name="VisualPuzzles",
        dataset="VisualPuzzles",
        rows=several(
            REFERENCES,
            category="spatial algorithmic analogical inductive deductive".split(),
            difficulty=["easy", "medium", "hard", "easy", "easy"],
            options="['red', 'blue', 'green', 'grey']",
        ),
        answers=by_number(
            "Answer: A", "Answer: C", "Not B. Answer: c", "D", "Answer: hard to say"
        ),
        judge=JUDGE,
        expects={"overall/category/acc": 40.0, "easy/level/acc": 100 / 3},
    ),
    Schema(
        class_name="PuzzleVQA",
        dataset="PuzzleVQA",
        rows=several(
            ["red", "blue"] * 10, category=PUZZLES, options="['red', 'blue', '3']"
        ),
        answers={
            **dict.fromkeys(range(20), "So it is red. Answer: A"),
            0: "Answer: B",
            2: "A",
            3: "Answer: B, as it is blue",
        },
        expects={"overall/acc": 45.0, "grid_number/acc": 0.0, "overall/hit": 9.0},
    ),
    Schema(
        class_name="VisuLogic",
        dataset="VisuLogic",
        rows=several(["A", "B", "C", "D", "A", "B"], category=LOGIC),
        answers=by_number(
            r"Answer: \boxed{A}",
            r"\boxed{A}",
            "The answer is: C. It follows.",
            "The answer is D",
            r"\boxed{\text{A}}",
            "hard to say",
        ),
        judge=JUDGE,
        expects={"Overall/acc": 4 / 6 * 100, "Spatial Reasoning/acc": 0.0},
    ),
    Schema(
        class_name="XLRSBench",
        dataset="XLRS-Bench-lite",
        rows=several(
            ["A", "B", "C", "AD", "D"],
            category=["Perception"] * 2 + ["Reasoning"] * 3,
            **{
                "multi-choice options": LISTED,
                "l2-category": ["Counting", "Colour"] + ["Planning"] * 3,
            },
        ),
        answers=by_number(
            "A", "The answer is C", "(C)", "A, D", "It is hard to say"
        ),
        judge=[
            ("Answer: A, D", "AD"),
            ("Answer: A", "A"),
            (r"Answer: \(C", "C"),
            ("answer is C", "C"),
            ("hard to say", "The option D"),
        ],
        expects={"Overall micro": 0.6, "Perception/Colour": 0.0},
    ),
    Schema(
        class_name="OmniEarthMCQBench",
        dataset="OmniEarth-Bench",
        rows=several(
            ["A", "B", "C", "AD", "G"],
            category=["Atmosphere"] * 2 + ["Biosphere"] * 3,
            **{
                "multi-choice options": LISTED,
                "l2-category": "x",
                "l3-category": "y",
                "l4-category": ["a", "b", "c", "c", "d"],
            },
        ),
        answers=by_number(
            "A", "The answer is C", "(C)", "A, D", "it is not known"
        ),
        expects={"Overall micro": 0.6, "Sphere macro: Atmosphere": 0.5},
    ),
    Schema(
        class_name="VLMBlind",
        dataset="VLMBlind",
        rows=[
            {"index": number, "question": "How many?", "task": task, "answers": answer}
            for number, (task, answer) in enumerate(
                [
                    ("Subway Connections", "2"),
                    ("Subway Connections", "1"),
                    ("Nested Squares", "3"),
                    ("Touching Circles", "Yes"),
                    ("Counting Grid - Word Grids", "4,5"),
                    ("Counting Grid - Blank Grids", "4,5"),
                    ("Olympic Counting - Pentagons", "6"),
                    ("Circled Letter", "e"),
                ]
            )
        ],
        answers=by_number(
            "{2}",
            "There are {3} of them",
            "3",
            "yes, they touch",
            "Rows: {4}, Columns={5}",
            "(4, 6)",
            "I count 6.",
            "The letter is {e}",
        ),
        expects={"Subway Connections": 0.5, "Circled Letter": 1.0},
    ),
    Schema(
        class_name="_3DSRBench",
        dataset="3DSRBench",
        rows=several(
            ["A", "B", "A", "B", "A", "B", "A", "A"],
            A="red",
            B="blue",
            category=["height"] * 4 + ["location"] * 4,
            qid=[
                f"{stem}{flip}{turn}"
                for stem in ("QAAAAAAA", "QBBBBBBB")
                for flip in ("", "-flip")
                for turn in ("", "-1")
            ],
        ),
        answers=by_number(
            "A", "(B)", "A", "B", "A", "It is blue", "B", "It is hard to say"
        ),
        judge=JUDGE,
        expects={
            "vanilla/Overall": 0.75,
            "circ_eval/Overall": 0.75,
            "flip_eval/Overall": 0.5,
            "flip_circ_eval/Overall": 0.5,
        },
    ),
    Schema(
        class_name="AffordanceDataset",
        dataset="A4Bench",
        rows=several(["['A']", "['A', 'B']", "['C']", "['D']"], **OPTIONS),
        answers=by_number("['A']", "['B','A']", "['D']", "['A', 'D']"),
        written="_acc.csv",
        expects={"Accuracy": 0.5},
    ),
    Schema(
        class_name="TreeBench",
        dataset="TreeBench",
        rows=several(
            REFERENCES,
            **OPTIONS,
            category=[
                "Perception/Attributes",
                "Perception/OCR",
                "Reasoning/Ordering",
                "Reasoning/Comparison",
                "Reasoning/Ordering",
            ],
            target_instances=["[[0, 0, 10, 10]]", "[]", *["[[5, 5, 15, 15]]"] * 3],
        ),
        answers=by_number(
            "<think>There <box>[0,0,10,5]</box></think><answer>a</answer>",
            "C",
            "<think><box>[5,5,15,15]</box></think><answer>C</answer>",
            "hard to say",
            "(A)",
        ),
        expects={"Overall": 0.6, "mIoU": 0.3, "Perception/Attributes": 1.0},
    ),
    Schema(
        class_name="TopViewRS",
        dataset="TopViewRS",
        rows=several(
            REFERENCES,
            A="top left",
            B="top right",
            C="bottom left",
            D="bottom right",
            category=["Top-View Recognition"] * 3 + ["Scene Counting"] * 2,
        ),
        answers=ANSWERS,
        judge=JUDGE,
        expects={"Overall": 0.4},
    ),
)  # fmt: skip
