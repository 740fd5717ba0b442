"""What the reader must read in an answer, and what it must leave unread.

docs/reading.md shows these tables; `tests/test_reading.py` holds both against the code.
"""

# ruff: noqa: RUF001 (letters and marks of full width are among the cases)

from __future__ import annotations

COLOURS = {"A": "red", "B": "green", "C": "blue", "D": "dark red"}

# A text of each kind with the letter in it; the options are COLOURS.
LETTERS = [
    (
        "a letter alone",
        ["A", "a", "A.", "a.", " A\n", "(A)", "(a)", "A)", "[A]", "**A**"],
    ),
    ("in letters of full width", ["Ａ", "（Ａ）", "Ａ．", "　A", "A\ufeff"]),
    ("Chinese marks", ["A、", "A。", "【A】", "「A」", "《A》", "A；"]),
    ("quotes and code", ['"A"', "“A”", "'A'", "`A`", "```\nA\n```"]),
    (
        "LaTeX",
        [
            "$A$",
            "\\boxed{A}",
            "\\boxed{\\text{A}}",
            "$\\boxed{\\mathrm{A}}$",
            "\\(A\\)",
        ],
    ),
    (
        "boxes",
        [
            "<answer>A</answer>",
            "<answer>A",
            "<answer>A</answer",
            "<|begin_of_box|>A<|end_of_box|",
            "<answer> (A) red </answer>",
            "<|begin_of_box|>A<|end_of_box|>",
            "It is the first.\n\n\\boxed{A}",
            "B looks near, but <answer>A</answer>",
        ],
    ),
    (
        "JSON",
        [
            '{"answer": "A"}',
            '```json\n{"answer": "A"}\n```',
            '{"reason": "B?", "answer": "a"}',
        ],
    ),
    (
        "tokens that end a reply",
        [
            "A<|im_end|>",
            "A</s>",
            "A<|eot_id|>",
            "A<end_of_turn>",
            "A<｜end▁of▁sentence｜>",
        ],
    ),
    (
        "a letter with its text",
        ["A. red", "A: red", "(A) red", "A red", "A、red", "**A. red**"],
    ),
    ("the text alone", ["red", "Red", "RED.", "red!", "“red”", "a red", "red。"]),
    (
        "a sentence that says it",
        [
            "The answer is A",
            "The answer is A.",
            "Answer: A",
            "ANSWER: A",
            "Final Answer: $A$",
            "The correct answer is **A. red**",
            "The correct answer is **A**.",
            "The correct option is (A).",
            "Option (A) is right",
            "Option A is correct.",
            "option a",
            "the answer is a",
            "I choose A.",
            "I would go with A because of the light.",
            "The answer is A because it looks so.",
            "The answer is red.",
            "The answer is: \n\n**A**",
            "Answer:\nA",
            "The answer is B? No. The final answer is A.",
            "It may be B. Therefore, the answer is A.",
        ],
    ),
    (
        "Chinese sentences",
        [
            "答案是A",
            "答案：A。",
            "答案A",
            "选A",
            "我选择 A",
            "正确答案为Ａ",
            "故选A。",
            "因此答案是（A）。",
            "正确选项是A",
            "选项A正确",
            "应该选A，因为它是红色的。",
        ],
    ),
    (
        "a letter first or last",
        [
            "A, obviously",
            "A: red because it is red and not B.",
            "A. The light is warm there.",
            "(A) The light is warm there.",
            "A\nThe light is warm there.",
            "A - the light is warm there",
            "The light is warm there.\nA",
            "The light is warm there, so A.",
            "The light is warm, so it must be option A.",
        ],
    ),
    (
        "the text in a sentence",
        [
            "It is red.",
            "The car is painted red",
            "It is not green but red",
            "是red色的",
        ],
    ),
]

# Texts in which none of COLOURS can be taken for the answer.
UNREAD = [
    ("nothing", ["", " ", ".", "I cannot tell.", "None of these", "E", "à", "AB", "?"]),
    (
        "two options",
        [
            "A or B",
            "A and B",
            "A, B",
            "A/B",
            "A、B",
            "A和B",
            "either A or B",
            "Both A and C",
            "The answer is A or B.",
            "The answer is A and C",
            "答案是A或B",
            "选A和B",
            "red or green",
            "either",
            "A. red B. green",
            "A. red\nB. green\nC. blue\nD. dark red",
            "The answer is A. The answer is B.",
            "I think A but B is possible",
            "The answer is A, but B is also possible.",
            "<answer>A</answer><answer>B</answer>",
            '{"answer": ["A", "B"]}',
            "\\boxed{A, B}",
        ],
    ),
    ("a letter with another's text", ["A. green", "(B) red", "A: blue"]),
    (
        "the article, and words that begin with a letter",
        [
            "A cat is shown",
            "A car and a dog",
            "a cat",
            "The answer is a cat.",
            "I see a cat.",
            "An answer",
            "Actually",
            "B-52",
            "C++",
            "D's",
            "Vitamin C",
            "It contains vitamin C.",
            "A.M.",
            "Dr. B is shown",
            "Bring it",
            "B vitamins are shown",
        ],
    ),
    (
        "a word in a word",
        [
            "Nothing is rendered",
            "reddish",
            "infrared",
            "red-hot",
            "evergreens",
            "It rendered",
        ],
    ),
    (
        "denied",
        [
            "not red",
            "It is not red.",
            "It isn't red",
            "no red at all",
            "There is nothing that could be red.",
            "not A",
            "The answer is not A.",
            "I do not think the answer is A.",
            "A is wrong",
            "A is not correct",
            "Option A is incorrect.",
            "red is incorrect",
            "不是A",
            "答案不是A",
            "不选A",
            "It cannot be A.",
            "It could be A",
            "If the answer is A, it is warm.",
            "neither red nor green",
            "maybe A?",
            "A?",
            "The answer is A?",
        ],
    ),
]

YES = [
    (
        "one word",
        [
            "Yes",
            "yes",
            "YES.",
            "**Yes**",
            "(yes)",
            '"Yes"',
            "Ｙｅｓ",
            "True",
            "Correct.",
        ],
    ),
    (
        "Chinese",
        [
            "是",
            "是的",
            "是。",
            "对",
            "对的。",
            "正确",
            "有",
            "是的，有一只猫。",
            "答案是是",
        ],
    ),
    (
        "boxes",
        ["\\boxed{Yes}", "<answer>yes</answer>", '{"answer": "yes"}', "yes<|im_end|>"],
    ),
    (
        "sentences",
        [
            "yes, it is.",
            "The answer is yes",
            "Yes, there is no cat",
            "Yes - a cat",
            "There is a cat, so yes",
            "Of course",
        ],
    ),
]
NO = [
    ("one word", ["No", "no.", "**No**", "NO", "“No”", "False", "Nope", "incorrect"]),
    (
        "Chinese",
        ["否", "不是", "不是。", "不对", "没有", "错误", "不", "不是，那是一只狗。"],
    ),
    (
        "sentences",
        [
            "Not at all",
            "Not at all.",
            "No, it is not.",
            "It is not.",
            "There is no cat in the image.",
            "The answer is no.",
            "答案：否",
            "No\nIt is a dog.",
            "Definitely not!",
        ],
    ),
]
NEITHER = [
    (
        "neither, or both",
        [
            "",
            "Unknown",
            "A cat",
            "Yes and no",
            "yes/no",
            "Yes or no?",
            "No. Yes.",
            "Yes. No.",
            "There is no doubt about it",
            "nothing",
            "Note the cat",
            "yesterday",
            "It is No. 5",
            "是否",
            "不清楚",
            "是一只猫还是狗不清楚",
            "True or false",
            "<answer>yes</answer><answer>no</answer>",
        ],
    ),
]

_NUMBERS = {"A": "1", "B": "2", "C": "3", "D": "12"}
_PLACES = {
    "A": "On the left side of the table",
    "B": "On the right side of the table",
    "C": "Under the table",
    "D": "None of the above",
}
_CHINESE = {"A": "一只猫", "B": "一只狗", "C": "鸟", "D": "没有动物"}
_ANIMALS = {"A": "dog", "B": "cat", "C": "elephant", "D": "ant", "E": "bee"}
_SIGNS = {"A": "B", "B": "C", "C": "A", "D": "D"}
_WORDS = {"A": "Yes", "B": "No"}
_NONE = {"A": "red", "B": "None"}

OTHERS: list[tuple[dict[str, str], str, str | None]] = [
    (_NUMBERS, "There are 2 dogs", "B"),
    (_NUMBERS, "12", "D"),
    (_NUMBERS, "The answer is 12.", "D"),
    (_NUMBERS, "\\boxed{12}", "D"),
    (_NUMBERS, "2.5", None),
    (_NUMBERS, "12%", None),
    (_NUMBERS, "-2", None),
    (_NUMBERS, "2 dogs and 1 cat", None),
    (_NUMBERS, "10²", None),
    (_PLACES, "The cup is on the right side of the table.", "B"),
    (_PLACES, "None of the above", "D"),
    (_PLACES, "on the left", None),
    (_PLACES, "B. On the left side of the table", None),
    (_PLACES, "A cup is on the table", None),
    (_PLACES, "Answer: A cup on a table", None),
    (_PLACES, "### Final Answer\n\n**B**", "B"),
    (_PLACES, "Answer: **B**\n\nUnlike in A, it is on the right.", "B"),
    (_PLACES, "The answer is not A, it is B.", "B"),
    (_PLACES, "The answer is B, not A.", "B"),
    (_PLACES, "The correct answer is B, since A is blocked.", "B"),
    (_PLACES, "I'd say it is option C.", "C"),
    (_PLACES, "A: The cup is there.", None),
    (
        _PLACES,
        "Let us go through them:\nA. On the left side: no.\nB. On the right side: yes."
        "\nC. Under the table: no.\n\nThe correct answer is B.",
        "B",
    ),
    (
        _PLACES,
        "Looking at each option:\n- A is wrong, as the cup is elsewhere.\n- C is wrong "
        "too.\n\nSo the answer is (B).",
        "B",
    ),
    (_PLACES, "Sorry, I can't help with images of people yet.", None),
    (_CHINESE, "图中是一只猫。", "A"),
    (_CHINESE, "这不是一只猫, 而是一只狗。", "B"),
    (_CHINESE, "不是一只猫", None),
    (_CHINESE, "鸟", "C"),
    (_CHINESE, "鸟巢", None),
    (_CHINESE, "是鸟。", "C"),
    (_CHINESE, "没有动物", "D"),
    (_CHINESE, "B选项", "B"),
    (_CHINESE, "答案是一只狗", "B"),
    (_CHINESE, "A和B都不对", None),
    (_CHINESE, "正解はBです", "B"),
    (_CHINESE, "정답은 B입니다", "B"),
    (_ANIMALS, "elephant", "C"),
    (_ANIMALS, "It is an elephant.", "C"),
    (_ANIMALS, "The ants", None),
    (_ANIMALS, "A dog is shown", "A"),
    (_ANIMALS, "This is not a dog. It is a cat.", "B"),
    (_ANIMALS, "a bee and a cat", None),
    (_SIGNS, "B", "B"),
    (_SIGNS, "The letter on the sign is B.", None),
    (_WORDS, "Yes, there is no cat", "A"),
    (_WORDS, "B. No", "B"),
    (_WORDS, "A. No", None),
    (_NONE, "None", "B"),
    (_NONE, "B", "B"),
]

# An answer, a reference, and whether one is the other.
TEXTS = [
    ("红色", "红色", True),
    ("红色。", "红色", True),
    ("Red.", "red", True),
    ("１２３", "123", True),
    ("123", "１２３", True),
    ("<answer>dark red</answer>", "dark red", True),
    ("\\boxed{42}", "42", True),
    ("a cat", "cat", True),
    ("dark red", "red", False),
    ("10²", "102", False),
    ("", "", False),
    ("-5", "5", False),
]
