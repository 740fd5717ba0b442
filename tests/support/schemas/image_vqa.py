"""Classes of vlmeval.dataset.image_vqa and image_shortqa."""

from __future__ import annotations

from tests.support.schemas import IMAGE, Schema, by_number, several

OLYMPIADS = """OE_MM_maths_en_COMP OE_MM_maths_zh_CEE OE_MM_maths_zh_COMP
OE_MM_physics_en_COMP OE_MM_physics_zh_CEE OE_TO_maths_en_COMP OE_TO_maths_zh_CEE
OE_TO_maths_zh_COMP OE_TO_physics_en_COMP OE_TO_physics_zh_CEE""".split()
SKILLS = ["inductive", "deductive", "numerical", "spatial", "mechanical"]
TABLES = ["fintabnetqa", "vtabfact", "vwtq", "vwtq_syn"]
NEEDLES = """find-image count-text find-text infer-choose count-image
visual-reasoning""".split()
CAPABILITIES = [
    "planning and exploring",
    "calculation",
    "spatial-temporal",
    "casual chaining analysis",
    "pattern analysis",
]
# What a judge extracts from an answer, and how it compares what is extracted.
EXTRACTED = (
    (r"Model response: 'It is five.'\s*Extracted Answer: \Z", "5"),
    (r"Model response: 'The angle[^\n]*'\s*Extracted Answer: \Z", "60 degrees"),
    (r"Model response: 'C'\s*Extracted Answer: \Z", "C"),
    (r"Extracted Answer: \Z", "null"),
    (r"Answer\]: 60\s+\[Model_answer\] : 60 degrees\s+Judgement:\Z", "1"),
    (r"Judgement:\Z", "0"),
)


def metadata(subject: str, subfield: str) -> str:
    """Give a cell of MathVerse."""
    return str({"split": "testmini", "subject": subject, "subfield": subfield})


def wild(dataset: str, *parts: str) -> list[str]:
    """Give the indexes of four views of each document of a dataset."""
    return [f"{dataset}-{part}-{view}-7" for part in parts for view in range(4)]


def wild_rows() -> list[dict[str, object]]:
    """Give documents of three datasets in four views."""
    indexes = [
        *wild("DocVQA", "val"),
        *wild("ChartQA", "test"),
        *wild("TableVQA", *TABLES),
    ]
    answers = {"vtabfact": "1", "fintabnetqa": "$12 million", "vwtq": "red|blue"}
    return [
        {
            "index": index,
            "question": "Which?",
            "answer": answers.get(index.split("-")[1], "['12']"),
            "image": IMAGE,
        }
        for index in indexes
    ]


def wild_answers() -> dict[object, str]:
    """Answer the views of a document alike, but for one or two."""
    said = {
        "DocVQA": ["12", "12", "12", "Nothing"],
        "ChartQA": ["12", "12.3", "11.9", "12"],
        "fintabnetqa": ["$12 million", "12e6", "12", "13 million"],
        "vtabfact": ["True", "true.", "It is True", "False"],
        "vwtq": ["red||blue", "blue|red", "red", "Red||blue"],
        "vwtq_syn": ["['12']", "12", "", "['12']"],
    }
    answers: dict[object, str] = {}
    for number, row in enumerate(wild_rows()):
        dataset, part, *_ = str(row["index"]).split("-")
        answers[row["index"]] = said.get(part, said.get(dataset, []))[number % 4]
    return answers


def sudoku(*, solved: bool) -> str:
    """Give how a judge formats an answer to a puzzle."""
    first = "[[1,0,0,4],[0,4,1,0],[2,0,0,3],[0,3,2,0]]"
    done = "[[1,2,3,4],[3,4,1,2],[2,1,4,3],[4,3,2,1]]"
    return f"Perception\n{first}\nAnswer\n{done if solved else first}"


SCHEMAS = (
    Schema(
        class_name="VizWiz",
        dataset="VizWiz",
        rows=[
            {"index": n, "question": "What?", "answers": answers}
            for n, answers in enumerate(
                [
                    str(["red"] * 9 + ["blue"]),
                    str(["two dogs"] * 5 + ["dogs"] * 5),
                    str(["unanswerable"] * 10),
                    str(["12", "12", "12", "11", "10", "9", "8", "7", "6", "5"]),
                ]
            )
        ],
        answers=by_number("Red.", "a red one", "unanswerable", "12"),
        expects={"Overall": (1 + 0 + 1 + 0.9) / 4 * 100},
    ),
    Schema(
        class_name="MathVerse",
        dataset="MathVerse_MINI_Vision_Only",
        rows=several(
            ["5", "60", "C", "7", "5"],
            problem_version="Vision Only",
            question_for_eval="How many?",
            metadata=[
                *[metadata("Plane Geometry", "Angle")] * 2,
                metadata("Functions", "Coordinate"),
                *[metadata("Solid Geometry", "Volume")] * 2,
            ],
        ),
        answers=by_number("It is five.", "The angle is 60°", "C", "hm", "8"),
        judge=EXTRACTED,
        needs_judge=True,
        expects={"Vision Only/Overall": 60.0, "Vision Only/Solid Geometry": 0.0},
    ),
    Schema(
        class_name="OlympiadBench",
        dataset="OlympiadBench",
        rows=[
            {
                "index": number,
                "question": "How many?",
                "source": source,
                "answer_type": kind,
                "final_answer": f"['{answer}']",
                "error": error,
                "unit": "",
                "is_multiple_answer": "False",
                "language": "Chinese" if "zh" in source else "English",
            }
            for number, (source, kind, answer, error) in enumerate(
                zip(
                    OLYMPIADS,
                    ["Numerical", "Expression", "Tuple", "Numerical", "Interval"] * 2,
                    "7 x+1 (1,2) 3.14,2 [0,1) 7 x+1 (1,2) 9 [0,1)".split(),
                    ["", "", "", "0.01,0.1", "", "", "", "", "1e-1", ""],
                    strict=True,
                )
            )
        ],
        answers=by_number(
            r"So the final answer is \boxed{7}.",
            "所以最终答案是$1+x$。",
            "(1,2)",
            "So the final answer is 3.145, 2.05.",
            r"\boxed{[0,2)}",
            "I do not know",
            r"x\cdot 1+1",
            "(2,1)",
            "It is $9.05$",
            "[0,1)",
        ),
        expects={"AVG": 50.0, "OE_MM_maths_en_COMP": 100.0, "en_physics": 100.0},
    ),
    Schema(
        class_name="LogicVista",
        dataset="LogicVista",
        rows=several(["A", "B", "C, D", "D", "A"], skill=[f"['{s}']" for s in SKILLS]),
        answers=by_number(
            "A", "the second one", "C and D", "hard to say", "[B] is right"
        ),
        judge=[
            (r"<start>\nA\n<end>\nYour output: \Z", "A"),
            (r"second one\n<end>\nYour output: \Z", "B"),
            (r"C and D\n<end>\nYour output: \Z", "DC"),
            (r"hard to say\n<end>\nYour output: \Z", "Z"),
            (r"is right\n<end>\nYour output: \Z", "B"),
        ],
        needs_judge=True,
        expects={"Overall/acc": 60.0, "spatial/acc": 0.0, "numerical/hit": 1.0},
    ),
    Schema(
        class_name="TableVQABench",
        dataset="TableVQABench",
        rows=several(
            ["$12 million", "12%", "1", "0", "red|blue", "7", "red", "2004"],
            split=[name for name in TABLES for _ in range(2)],
        ),
        answers=by_number(
            "Answer: 12", "0.12", "True", "I do not know",
            "blue||red", "eight", "Red.", "in 2004",
        ),
        expects={
            "fintabnetqa/average_scores/1": 100.0,
            "fintabnetqa/average_scores/2": 50.0,
            "vwtq/average_scores/1": 50.0,
        },
    ),
    Schema(
        class_name="CRPE",
        dataset="CRPE_RELATION",
        rows=several(
            ["B. dog", "A. cat", "C. sea", "D. box"] * 3,
            category=["exist"] * 4 + ["subject"] * 4 + ["predicate"] * 4,
        ),
        answers=by_number(
            "B", "A. cat", "It is the sea", "D",
            "B", "A", "C", "A",
            "a dog", "A", "Sea?", "box",
        ),
        expects={"exist": 1.0, "subject": 0.0, "predicate": 1.0, "total": 2 / 3},
    ),
    Schema(
        class_name="MMNIAH",
        dataset="MM_NIAH_VAL",
        rows=[
            {
                "index": number,
                "question": "['Read.', '<image>Which?']",
                "answer": answer,
                "category": category,
                "context": "",
                "multi-choice options": "[['red', 'blue'], []]",
            }
            for number, (answer, category) in enumerate(
                zip(
                    ["1", "[1, 2]", "red", "Paris", "[2]", "0", "1"],
                    [*NEEDLES, "find-image"],
                    strict=True,
                )
            )
        ],
        answers=by_number(
            "B", "[1, 2]", "It is red.", "London", "two", "the answer is **A**", "hm"
        ),
        expects={"total": 5 / 7, "find-image": 0.5, "infer-choose": 0.0},
    ),
    Schema(
        class_name="PhyX",
        dataset="PhyX_mini_MC",
        judged_by={"valid_type": "LLM"},
        exact_by={"valid_type": "STR"},
        rows=several(
            ["A", "B", "C", "D"], category=["Optics", "Optics", "Waves", "Waves"]
        ),
        answers=by_number("The correct answer is A", "B:", "**C** it is", "no idea"),
        judge=[(r"answer: no idea \s*Judegement:\Z", "1"), (r"Judegement:\Z", "0")],
        expects={"Overall": 0.75, "Waves": 0.5},
    ),
    Schema(
        class_name="PhyX",
        dataset="PhyX_mini_OE",
        judged_by={"valid_type": "LLM"},
        exact_by={"valid_type": "STR"},
        rows=several(
            ["5 m", "0.5 N", "12", "7"], category=["Optics", "Optics", "Waves", "Waves"]
        ),
        answers=by_number(
            r"So \boxed{5 m}", "Final answer: 50 cN", "about 12 of them", "hm"
        ),
        judge=[(r"answer: 50 cN \s*Judegement:\Z", "1"), (r"Judegement:\Z", "0")],
        expects={"Overall": 0.5},
    ),
    Schema(
        class_name="TallyQA",
        dataset="TallyQA",
        rows=several(["2", "0", "12", "5"]),
        answers=by_number("There are two.", "1", "12", "none"),
        expects={"TallyQA": 0.5},
    ),
    Schema(
        class_name="CountBenchQA",
        dataset="CountBenchQA",
        rows=several(["2", "3", "10", "5"]),
        answers=by_number("2", "three", "I count 10.", "6"),
        expects={"accuracy": 50.0},
    ),
    Schema(
        class_name="LENS",
        dataset="LENS-CN-QA",
        rows=several(
            ["12", "红色", "3/4", "B"], category=["计数", "颜色", "计数", "颜色"]
        ),
        answers=by_number("12", "它是红色的", "0.75", "不知道"),
        judge=[("它是红色的Extracted", "红色"), ("不知道Extracted", "A")],
        expects={"Overall/acc": 50.0, "计数/acc": 100.0},
    ),
    Schema(
        class_name="Physics_yale",
        dataset="optics_dataset",
        rows=several(
            [r"['x+1', '7']", r"[r'\\text{red}']", "['3']", "['9']"], category="optics"
        ),
        answers=by_number(
            r"\[\boxed{1+x}\]", r"\boxed{\text{red}}", "It is 3.", r"\boxed{8}"
        ),
        judge=[(r"text\{red\}", "True"), ("Expression", "False")],
        expects={"Overall/acc": 25.0},
    ),
    Schema(
        class_name="SeePhys",
        dataset="SeePhys",
        rows=several(
            ["12", r"\frac{1}{2}", "5 N", "red"],
            level=["1", "1", "2", "2"],
            subject=["O", "EM", "EM", "O"],
            language="English",
            img_category="circuit",
            sig_figs="",
        ),
        answers=by_number(
            "<answer> 12 </answer>", "0.5", "The answer is: five newtons.", "blue"
        ),
        judge=[
            ("five newtonsExtracted answer:", "5 newtons"),
            ("blueExtracted answer:", "blue"),
            (r"Answer\]: 5 newtons\nJudgement: \Z", "Judgement: 1"),
            (r"Answer\]: blue\nJudgement: \Z", "0"),
        ],
        expects={"Overall/Accuracy (%)": 50.0, "level/1": 100.0},
    ),
    Schema(
        class_name="VTCBench",
        dataset="VTCBench",
        rows=several(
            ["['red', 'blue']", "Paris", "['12']", "The cat sat."],
            category=["Reasoning", "Retrieval", "Retrieval", "Memory"],
        ),
        answers=by_number("It is red", "In Paris.", "eleven", "A cat sat there."),
        judge=[("A cat sat there", "A")],
        expects={"Reasoning": 0.5, "Retrieval": 0.5},
    ),
    Schema(
        class_name="LLaVABench_KO",
        dataset="LLaVABench_KO",
        rows=several(
            ["", "", ""],
            caption="고양이",
            gpt4_ans="고양이입니다.",
            category=["conv", "detail", "complex"],
        ),
        answers=by_number("고양이입니다.", "개", "모르겠습니다"),
        judge=[("\n개\n", "8 4\nwhy"), ("모르겠습니다\n", "9 2"), ("", "8 8")],
        needs_judge=True,
        expects={"detail/Relative Score (main)": 50.0},
    ),
    Schema(
        class_name="VGRPBench",
        dataset="VGRPBench",
        rows=several(
            ["", "", ""],
            category=["sudoku_4x4", "sudoku_4x4", "binairo_4x4"],
            states=str(
                {
                    "initialization": [
                        [1, 0, 0, 4],
                        [0, 4, 1, 0],
                        [2, 0, 0, 3],
                        [0, 3, 2, 0],
                    ]
                }
            ),
        ),
        answers=by_number("solved", "not solved", "hm"),
        judge=[
            ("not solved", sudoku(solved=False)),
            ("solved", sudoku(solved=True)),
            ("hm", "Wrong"),
        ],
        needs_judge=True,
        expects={"sudoku_4x4/Answer Score": 50.0, "sudoku_4x4/Perception Score": 100.0},
    ),
    Schema(
        class_name="WildDocBenchmark",
        dataset="WildDoc",
        rows=wild_rows(),
        answers=wild_answers(),
        expects={
            "DocVQA/Overall/Score": 75.0,
            "ChartQA/Consistency/Score": 100.0,
            "TableVQA/Overall/Score": (3 / 4 + 3 / 4 + 3 / 4 + 1 / 2) / 4 * 100,
        },
    ),
    Schema(
        class_name="QSpatial",
        dataset="QSpatial_plus",
        rows=several(
            ["(1.0, 'm')", "(20, 'cm')", "(2, 'feet')"],
            question_type=["height", "width", "width"],
        ),
        answers=by_number(
            r"\scalar{90} \distance_unit{cm}",
            "It is a meter wide",
            r"\scalar{1-1.5} \distance_unit{ft}",
        ),
        judge=[
            (r"scalar\{90", "(90, cm)"),
            ("meter wide", "(1, meter)"),
            (r"scalar\{1-1.5", "(1-1.5, ft)"),
        ],
        needs_judge=True,
        expects={"delta_2": 2 / 3, "width_delta_2": 0.5, "delta_1_point_5": 1 / 3},
    ),
    Schema(
        class_name="BMMR",
        dataset="BMMR",
        rows=several(
            ["7", "['A', 'C']", "12", "B", "5"],
            task_type=["open_end", "mc", "open_end", "mc", "open_end"],
            cot=["True", "True", "True", "False", "False"],
            language=["En", "Zh", "Zh", "En", "En"],
            category_id=[
                "['0201']", "['0501', '0901']", "['0201']", "['03']", "['03']"
            ],
        ),
        answers=by_number(
            r"\boxed{7}", r"Answer### \boxed{AC}", "12", r"\boxed{B}", r"\boxed{6}"
        ),
        expects={"CoT": 2 / 3, "no_CoT": 0.5, "Zh": 0.5},
    ),
    Schema(
        class_name="TDBenchGrounding",
        dataset="tdbench_grounding_rot0",
        rows=several(["[0.1, 0.1, 0.5, 0.5]"] * 4),
        answers=by_number(
            "[0.1, 0.2, 0.4, 0.5]",
            "It is at 0.2, 0.2, 0.4, 0.4",
            "[0.6, 0.6, 0.9, 0.9]",
            "left",
        ),
        expects={"Average Centroid Containment": 0.5, "Total Samples": 4.0},
        model="centroid",
    ),
    Schema(
        class_name="ZEROBench",
        dataset="ZEROBench",
        rows=several([""] * 4, answers=["12", "red", "5.5", "yes"]),
        answers=by_number("{12}", "It is {Red}.", "5.5", "{no}"),
        expects={"accuracy": 0.5},
    ),
    Schema(
        class_name="OCR_Reasoning",
        dataset="OCR_Reasoning",
        rows=several(
            ["12", "0.5", "red", "blue"],
            task=["Numbers", "Numbers", "Logic", "Logic"],
            question_type=["free_form", "free_form", "free_form", "multi_choice"],
            answer_type=["integer", "float", "text", "text"],
            answer_option=["", "", "", "B"],
            choices="['red', 'blue']",
            reasoning="It is so.",
            language="English",
            format="a word",
        ),
        answers=by_number("12", "a half", "blue", "(B)"),
        judge=[
            (r"respone: a halfExtracted answer:\Z", "0.5"),
            (r"respone: blueExtracted answer:\Z", "blue"),
            (r"a half", "Good. [[6]]"),
            ("It is so", "[[8]]"),
        ],
        needs_judge=True,
        expects={"Overall/acc": 75.0, "Overall_RP/acc": 75.0},
    ),
    Schema(
        class_name="Omni3DBench",
        dataset="Omni3DBench",
        rows=several(
            ["2", "3", "yes", "no", "chair", "1.5", "2.0"],
            answer_type=["int", "int", "str", "str", "str", "float", "float"],
        ),
        answers=by_number(
            "<ans>2</ans>", "three", "<ans>True</ans>", "yes", "Chair", "1.6", "far"
        ),
        expects={
            "Yes/No Accuracy": 0.5,
            "Multiple Choice Accuracy": 1.0,
            "Numeric (count) Accuracy": 0.5,
            "Numeric (other) Mean Relative Accuracy": 0.45,
        },
    ),
    Schema(
        class_name="MMEReasoning",
        dataset="MME-Reasoning",
        rows=several(
            ["A", "5", "['B', 'C']", "{'x': 1}", "7"],
            question_type=["choice", "open", "choice", "open", "open"],
            function_id=["", "", "", "match_answer_function", ""],
            prompt_id=["", "", "", "id_answer_pair_prompt", ""],
            special_info="",
            capability=[f"['{each}']" for each in CAPABILITIES],
            reasoning_type=[
                f"['{each}']"
                for each in "inductive deductive abductive deductive inductive".split()
            ],
        ),
        answers=by_number("It is A", "It is five", "B and C", "x is 1", "hm"),
        judge=[
            (r"\[Model answer\]: 5\s", "1"),
            (r"\[Model answer\]:", "0"),
            ("It is A", "A"),
            ("It is five", "5"),
            ("B and C", "C,B"),
            ("x is 1", '{"x": 1}'),
            ("hm", "nothing"),
        ],
        needs_judge=True,
        expects={"Overall": 80.0, "pattern analysis": 0.0, "inductive": 50.0},
    ),
    Schema(
        class_name="MMVMBench",
        dataset="MMVMBench",
        rows=several(
            ["A", "B", "C", "D"] * 2,
            match_type=["[1]", "[2]", "[3]", "[4]", "[5]", "[6]", "[7]", "[8, 1]"],
        ),
        answers=by_number("A", "It is B", "hm", "D", "A", "B", "A", "D"),
        judge=[("hm", "[NO]"), ("", "So it is right. [YES]")],
        needs_judge=True,
        expects={"Overall": 0.875, "TM": 0.0, "CL": 1.0},
    ),
    Schema(
        class_name="AyaVisionBench",
        dataset="AyaVisionBench",
        rows=several(
            ["red", "blue", "12"], category=["x", "x", "y"], language="English"
        ),
        answers=by_number("a red one", "green", "twelve"),
        judge=[("green", "[[WRONG]]"), ("a red one|twelve", "[[CORRECT]]")],
        needs_judge=True,
        expects={"Overall": 2 / 3, "x": 0.5, "y": 1.0},
    ),
    Schema(
        class_name="CoreCognition",
        dataset="CoreCognition",
        rows=several(
            ["A", "YES", "C", "NO"],
            category=["Sensorimotor"] * 2 + ["Formal Operation"] * 2,
            **{
                "l2-category": ["boundary", "boundary", "intent", "intent"],
                "question_type": ["MCQ", "YORN", "MCQ", "YORN"],
            },
        ),
        answers=by_number("A", "Yes, it is.", "the third one", "certainly"),
        judge=[("third one", "C"), ("certainly", "Yes")],
        expects={"Overall": 50.0, "Sensorimotor": 100.0, "Concept_intent": 0.0},
    ),
    Schema(
        class_name="VLMsAreBiased",
        dataset="vlms_are_biased_main",
        rows=several(
            [""] * 4,
            ground_truth=["3", "5", "No", "7"],
            expected_bias=["2", "4", "Yes", "8"],
            topic=["Animals", "Animals", "Optical Illusion", "Logos"],
        ),
        answers=by_number("{3}", "There are 4 legs", "{Yes}", "hm"),
        expects={"overall_acc": 0.25, "overall_bias_ratio": 0.5, "acc/Animals": 0.5},
    ),
    *(
        Schema(
            class_name=class_name,
            dataset=dataset,
            rows=several(["red", "two dogs", "B", "12"], category=["x", "x", "y", "y"])
            if letter is None
            else several(
                ["A", "B", "two dogs", "12"],
                A=["red", "red", "", ""],
                B=["blue", "blue", "", ""],
                category=["x", "x", "y", "y"],
            ),
            answers=by_number("A", "hard to say", "dogs, a pair", "13"),
            judge=[
                ("Answer: hard to say", "B"),
                (
                    "Response.*(dogs, a pair|hard to say)",
                    "[Begin Correctness]yes[End Correctness]"
                    "[Begin Reason]so[End Reason]",
                ),
                (
                    "Response",
                    "[Begin Correctness]no[End Correctness]"
                    "[Begin Reason]so[End Reason]",
                ),
            ],
            needs_judge=True,
            expects=expects,
        )
        for class_name, dataset, letter, expects in (
            ("ImageShortQADataset", "LiveMMBench_Perception", "A", {"Overall": 0.75}),
            ("PathVQA_VAL", "PathVQA_VAL", None, {"Overall": 0.5}),
            ("PathVQA_TEST", "PathVQA_TEST", None, {"Overall": 0.5}),
        )
    ),
)  # fmt: skip
