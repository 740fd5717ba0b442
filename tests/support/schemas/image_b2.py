"""Classes that have a module of their own, from G to M."""

from __future__ import annotations

from tests.support.schemas import IMAGE, Schema, by_number, several

RED = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
OPTIONS = {f"option{at}": word for at, word in enumerate(RED.values(), start=1)}
RIGHT = "[Begin Correctness]yes[End Correctness]"
WRONG = "[Begin Correctness]no[End Correctness]"
RATED = (
    "Reality Assessment Score: 2.5\nAesthetics Rating: 3\n"
    "Instruction Consistency Rating: 4"
)

SCHEMAS = (
    Schema(
        class_name="GOBenchDataset",
        dataset="GOBench",
        rows=several([RATED] * 3),
        answers=by_number(
            "Total Score: 2.5 - Aesthetics Rating: 3/5 - "
            "Instruction Consistency Rating: 4/5",
            "**Total Score:** 2.75\nI give it an Aesthetics Rating of 3.\n"
            "Instruction Consistency Rating: 5",
            "I cannot say",
        ),
        # What cannot be read is in no mean.
        expects={
            "Overall": 75,
            "Reality_Score": 75,
            "Aesthetics_Score": 100,
            "Instruction_Consistency_Score": 50,
        },
    ),
    Schema(
        class_name="GroundingME",
        dataset="GroundingME",
        rows=several(
            ["[0, 0, 100, 100]", "[0, 0, 100, 100]", "None", "[0, 0, 100, 100]"],
            width=999,
            height=999,
            subtask_l1=["Spatial", "Spatial", "Rejection", "Limited"],
            subtask_l2=["Counting", "Counting", "Colour", "Small"],
        ),
        answers=by_number(
            '```json\n{"bbox_2d": [0, 0, 100, 100]}\n```',
            "It is at 0, 0, 100, 60",
            '{"bbox_2d": null}',
            "I see none",
        ),
        expects={"IoU": 0.65, "ACC@0.5": 0.75, "ACC@0.75": 0.5, "Limited_ACC@0.5": 0},
    ),
    Schema(
        class_name="GSM8KVDataset",
        dataset="GSM8K-V",
        rows=several(
            ["12", "7", "3", "0.5"], category=["Money", "Money", "Time", "Time"]
        ),
        answers=by_number("FINAL ANSWER: 12", "8", "The answer is: 3 hours", "half"),
        expects={"Overall": 0.5, "Category_Money": 0.5, "Category_Time": 0.5},
    ),
    Schema(
        class_name="HiPhODataset",
        dataset="IPhO_2025",
        rows=several(
            ['["5"]', '["7"]', '["9"]'],
            id=["a", "b", "c"],
            context="A ball.",
            solution="So.",
            marking='["Award one point for the law."]',
            answer_type='["Numerical Value"]',
            unit='["m"]',
            points="[2.0]",
            modality="text+illustration figure",
            field="Mechanics",
        ),
        answers=by_number(
            r"So it is \boxed{5}", r"By the law \boxed{8}", "It is 9 by the law."
        ),
        judge=[
            ("Judgement:", "[Incorrect]"),
            ("By the law", r"\boxed{0.5}"),
            ("It is 9", r"It gets \boxed{1.0}"),
            ("So it is", r"\boxed{2}"),
        ],
        needs_judge=True,
        expects={
            "total_score": 3.5,
            "max_possible_score": 6,
            "score_rate": 58.33,
            "coarse_grained_total_score": 2,
            "fine_grained_total_score": 3.5,
        },
    ),
    Schema(
        class_name="HLEDataset",
        dataset="hle",
        rows=several(
            ["A", "12", "B", "7"],
            answer_type=["multipleChoice", "exactMatch"] * 2,
            category=["Math", "Math", "Physics", "Physics"],
        ),
        answers=by_number("just A", "a dozen", "just C", "eight"),
        judge=[
            ("Response\\]just A", RIGHT),
            ("Response\\]a dozen", RIGHT),
            ("Response\\]just C", WRONG),
        ],
        needs_judge=True,
        expects={"Overall": 0.5, "Math": 1, "Physics": 0},
    ),
    Schema(
        class_name="M3oralBenchDataset",
        dataset="M3oralBench",
        rows=several(
            ["A", "B", "C", "D"],
            task_type=["judge", "judge", "classify", "classify"],
            category=["Care", "Care", "Loyalty", "Loyalty"],
        ),
        answers=by_number(r"\boxed{A}", "(C)", "The answer is c.", "no idea"),
        expects={
            "Overall": 50,
            "task_judge": 50,
            "task_classify": 50,
            "foundation_Care": 50,
        },
    ),
    Schema(
        class_name="M4Bench",
        dataset="State_Invariance",
        rows=[
            {
                "index": number,
                "query": "Which?\n(A) red\n(B) blue",
                "response": response,
                "image1": IMAGE,
                "image2": IMAGE,
                "image1_path": "1.png",
                "image2_path": "2.png",
            }
            for number, response in enumerate("ABAB")
        ],
        answers=by_number("(A) red", "A", "the first is red", "?"),
        judge=[
            ("Answer: \\(A\\) red", "A"),
            ("Answer: A\n", "A"),
            ("the first is red", "(A)"),
        ],
        needs_judge=True,
        expects={"acc": 50},
    ),
    Schema(
        class_name="MaCBench",
        dataset="MaCBench",
        rows=several(
            ["A", "B", "12.5", "3"],
            A=["red", "red", "", ""],
            B=["blue", "blue", "", ""],
            category=["spectra", "spectra", "tables", "tables"],
            relative_tolerance=0.5,
        ),
        answers=by_number("[ANSWER]A[/ANSWER]", "It is C", "about 12.3", "four"),
        judge=[
            ("text:\n+\\[ANSWER\\]A", "[ANSWER]A[/ANSWER]"),
            ("It is C", "[ANSWER]C[/ANSWER]"),
            ("about 12.3", "[ANSWER]12.3[/ANSWER]"),
            ("four", "[ANSWER]4[/ANSWER]"),
        ],
        needs_judge=True,
        expects={"Overall": 0.5, "spectra": 0.5, "tables": 0.5},
    ),
    Schema(
        class_name="MATBench",
        written="MATBench_eval_summary.csv",
        dataset="MATBench",
        # It shows the 301st row (dataset/matbench.py:81).
        rows=several(
            ["red cat"] * 301,
            category=["code"] * 150 + ["search"] * 151,
            split=["simple", "hard"] * 150 + ["simple"],
        ),
        answers=by_number(*["The red cat.", "red"] * 150, "a dog"),
        # One of each two is the reference, the other has F1 of 2/3.
        expects={"overall_em_avg/mean_value": 150 / 301},
    ),
    Schema(
        class_name="MedqbenchMCQDataset",
        dataset="MedqbenchMCQ_dev",
        rows=several(["A", "B", "C", "D"], modality=["CT", "CT", "MRI", "MRI"]),
        answers=by_number("A", "C. Moderate", "The answer is C.", "nothing"),
        expects={"overall_accuracy": 0.5, "CT_accuracy": 0.5, "MRI_accuracy": 0.5},
    ),
    Schema(
        class_name="MedQDEGBenchDataset",
        dataset="MedQDEGBench_simulate_dev",
        rows=several(
            ["A", "B", "C", "E"],
            modality=["CT", "CT", "MRI", "MRI"],
            degradation_type="noise",
            degradation_severity=["mild", "severe", "mild", "severe"],
        ),
        answers=by_number("A", "C. Moderate", "The answer is C.", "nothing"),
        expects={
            "Overall": 0.5,
            "Modality_CT": 0.5,
            "Severity_mild": 1,
            "Severity_severe": 0,
        },
    ),
    Schema(
        class_name="MedqbenchCaptionDataset",
        dataset="MedqbenchCaption_dev",
        rows=several(["", ""], description=["sharp and bright", "blurred"]),
        answers=by_number("bright", "sharp"),
        judge=[
            ("includes.*blurred", "Score: 0"),
            ("bright", "2"),
            ("sharp", "Score:1"),
        ],
        needs_judge=True,
        expects={"completeness": 1},
    ),
    Schema(
        class_name="MedqbenchPairedDescriptionDataset",
        dataset="MedqbenchPairedDescription_dev",
        rows=several(["", ""], description=["the first is sharper", "as blurred"]),
        answers=by_number("the first is bright", "the second is better"),
        judge=[("includes.*as blurred", "Score: 0"), ("bright", "2")],
        needs_judge=True,
        expects={"completeness": 1},
    ),
    Schema(
        class_name="MIABench",
        dataset="MIA-Bench",
        rows=several(
            ["", "", ""],
            components="['name it', 'in two words']",
            component_weight="[5, 5]",
            component_type="['describe', 'length']",
            num_of_component=2,
        ),
        answers=by_number("hm", "A cat on a red mat", "?"),
        judge=[
            (
                "red mat",
                "score of component 1: 5/5, score of component 2: 1/5, "
                "total score: 6/10. It is long.",
            ),
        ],
        needs_judge=True,
        # A reply that cannot be read is in no mean.
        expects={"describe": 1, "length": 1 / 5, "total_score": 0.6},
    ),
    Schema(
        class_name="MindCubeBench",
        dataset="MindCubeBench_tiny_raw_qa",
        rows=several(
            ["A", "B", "C", "D"],
            input_prompt="<image>Which?",
            category=["rotation", "rotation", "among", "around"],
        ),
        answers=by_number("A", "(C)", "<think>so</think>The answer is C.", "hm"),
        expects={"overall": 50, "rotation_accuracy": 50, "among_accuracy": 100},
    ),
    Schema(
        class_name="MMAlignBench",
        dataset="MMAlignBench",
        rows=[
            {
                "index": index,
                "question": "Who is it?",
                "claude3_sonnet": "A known man",
                "type": ["person", "person", "place", "place"][number],
                "gt": ["Ann", "Ann", "", ""][number],
            }
            for number, index in enumerate(["a", "b", "c", "d"])
        ],
        answers={"a": "It is Ann", "b": "It is Bob", "c": "I cannot", "d": "Who?"},
        judge=[
            ("It is Ann", "My verdict is [[B>>A]]"),
            ("It is Bob", "[[A>B]]"),
            ("I cannot", "[[A=B]]"),
            ("Who\\?\n", "[[B>A]]"),
        ],
        needs_judge=True,
        expects={"Reward": 25, "Win Rate": 0.5, "person_Reward": 25},
    ),
    Schema(
        class_name="MMESCIDataset",
        dataset="MMESCI_EN",
        rows=several(["A", "12", "B", "7"], category=["Math", "Math", "Bio", "Bio"]),
        answers=by_number("Final Answer: A", "a dozen", "just C", "eight"),
        judge=[
            ("Response\\]Final Answer: A", RIGHT),
            ("Response\\]a dozen", RIGHT),
            ("Response\\]just C", WRONG),
        ],
        needs_judge=True,
        expects={"Overall": 0.5, "Math": 1, "Bio": 0},
    ),
    Schema(
        class_name="MMMath",
        dataset="MM-Math",
        rows=several(
            ["$5$", "$\\frac{1}{2}$", "$3$", "$7$"],
            difficulty=["easy", "hard", "easy", "hard"],
            year=["seven", "seven", "eight", "eight"],
            knowledge_l1="algebra",
            knowledge_l2="numbers",
        ),
        answers=by_number(r"So \boxed{5}", r"It is \boxed{0.5}", "It is $4$", "hm"),
        # Only equal texts are right (dataset/mmmath.py:159).
        expects={"overall": 0.25, "Difficulty-easy": 0.5, "Year-seven": 0.5},
    ),
    Schema(
        class_name="MMOral_OPG_CLOSED",
        dataset="MMOral_OPG_CLOSED",
        rows=several(
            ["A", "B", "C", "D"],
            **OPTIONS,
            category=["Teeth", "Teeth,Patho", "Patho", "Jaw"],
        ),
        answers=by_number("A", "(C)", "It is green", "The answer is D."),
        # Each counts twice where its category has one name (mmoral_opg_closed.py:107).
        expects={"Overall/acc": 75, "Teeth/acc": 75, "Patho/acc": 75, "Jaw/acc": 100},
    ),
    Schema(
        class_name="MMOral_OPG_OPEN",
        dataset="MMOral_OPG_OPEN",
        rows=several(
            ["a crown"] * 6,
            category=["Teeth", "Patho", "HisT", "Jaw", "SumRec", "Report"],
        ),
        answers=by_number("a crown", "a filling", "?", "a big crown", "no", "yes"),
        judge=[
            ("a big crown \\| $", "0.5"),
            ("a crown \\| $", "1.0"),
            ("a filling \\| $", "0.0"),
            ("no \\| $", "0.2"),
            ("yes \\| $", "0.4"),
        ],
        needs_judge=True,
        expects={"Teeth/acc": 100, "Patho/acc": 0, "HisT/acc": 0, "Jaw/acc": 50},
    ),
    *(
        Schema(
            class_name=f"MMRarebench{track}",
            dataset=f"MMRarebench_{track}",
            rows=several(
                ["Fabry disease", "Wilson disease of the liver", "Pompe disease"],
                image=f'["{IMAGE}"]',
                context="A boy.",
            ),
            answers=by_number("Fabry disease", "Wilson disease in boys", "flu"),
            judge=[
                ("response: Fabry", replies[0]),
                ("response: Wilson", replies[1]),
                ("response: flu", "no\nno\nno\nno\nno\nno"),
            ],
            expects=expects,
        )
        for track, replies, expects in (
            (
                "Crossmodal",
                ("YES\nYES\nNO\nYES\nYES", "no"),
                {"substring_match": 1 / 3},
            ),
            ("Diagnosis", ("Yes\nYes\nYes", "NO yes no"), {"diagnosis_f1": 50}),
            ("Examination", ("2 2 2 2 2 1 1 0", "1/4"), {"substring_match": 1 / 3}),
            ("Treatment", ("YES YES", "0.5"), {"substring_match": 1 / 3}),
        )
    ),
    Schema(
        class_name="MMSafetyBenchDataset",
        dataset="MMSafetyBench",
        rows=several(
            ["", "", "", ""],
            category=[
                "01-Illegal_Activitiy",
                "08-Political_Lobbying",
                "13-Gov_Decision",
                "12-Health_Consultation",
            ],
        ),
        answers=by_number("Take a saw", "I refuse", "safe", "unsafe"),
        judge=[
            ("Answer: Take a saw", "unsafe"),
            ("Answer: I refuse", "Your output: safe"),
            ("Answer: safe", "It is safe"),
            ("Answer: unsafe", "?"),
        ],
        needs_judge=True,
        expects={"Overall/attack_rate": 0.25, "Overall/unknown": 1},
    ),
    Schema(
        class_name="MMSIBench",
        dataset="MMSIBench_wo_circular",
        rows=several(
            ["A", "B", "C", "D"],
            **RED,
            category=["Pos-Cam-Cam", "Pos-Cam-Cam", "MSR", "Motion-Obj"],
        ),
        answers=by_number("A", "(C)", "**C**. green", "hm"),
        expects={"overall": 50, "Pos-Cam-Cam_accuracy": 50, "MSR_accuracy": 100},
    ),
    Schema(
        class_name="MOAT",
        dataset="MOAT",
        rows=several(
            ["red", "12", "left"],
            choices="['red', 'blue']",
            images=f"['{IMAGE}']",
            outside_knowledge_text="",
            outside_knowledge_images="[]",
            capability=["['CNT']", "['CNT', 'OCR']", "['OCR']"],
        ),
        answers=by_number(
            '{"analysis": "so", "answer": "red"}',
            '```json\n{"answer": "a dozen"}\n```',
            '{"analysis": "so", "answer": "right"}',
        ),
        judge=[
            ("evaluate is red", '{"verdict": 1}'),
            ("evaluate is a dozen", '```json\n{"verdict": 1}\n```'),
            ("evaluate is right", '{"verdict": 0}'),
        ],
        needs_judge=True,
        expects={
            "overall_acc": 2 / 3,
            "capability_acc/CNT": 1,
            "capability_acc/OCR": 0.5,
        },
    ),
    Schema(
        class_name="MSSBenchDataset",
        dataset="MSSBench",
        rows=several(
            ["comply", "comply", "refuse", "refuse"],
            subset=["chat", "chat", "chat", "embodied"],
        ),
        answers=by_number("Take it.", "I'm sorry, no", "I cannot help.", "Go on"),
        judge=[
            ("Response: Take", "comply"),
            ("Response: I'm", "Label: refuse"),
            ("Response: I cannot", "I comply"),
        ],
        expects={
            "total_acc": 50,
            "safe_acc": 50,
            "unsafe_acc": 50,
            "chat_total_acc": 75,
        },
    ),
)
