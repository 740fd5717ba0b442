"""The questions about an image, and the prompts they are asked in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from demo_model.draw import (
    COLOURS,
    MOST_SHAPES,
    SHAPES,
    Scene,
    draw_plain,
    draw_shapes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from PIL import Image

Kind = Literal["choice", "yes_no", "open"]
Category = Literal["colour", "shape", "count"]
KINDS: tuple[Kind, ...] = ("choice", "yes_no", "open")
CATEGORIES: tuple[Category, ...] = ("colour", "shape", "count")
LETTERS = "ABCDE"
NUMBERS = tuple(str(number) for number in range(1, MOST_SHAPES + 1))
VALUES: dict[Category, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "count": NUMBERS,
}
OPEN_QUESTIONS: dict[Category, tuple[str, ...]] = {
    "colour": (
        "What colour is the {thing}?",
        "Which colour does the {thing} have?",
        "What is the colour of the {thing}?",
    ),
    "shape": (
        "What shape is shown in the picture?",
        "Which shape can be seen in the picture?",
        "What is the shape in the picture?",
    ),
    "count": (
        "How many {thing}s are in the picture?",
        "How many {thing}s can be seen in the picture?",
        "What is the number of {thing}s in the picture?",
    ),
}
YES_NO_QUESTIONS: dict[Category, tuple[str, ...]] = {
    "colour": ("Is the {thing} {value}?", "Is {value} the colour of the {thing}?"),
    "shape": ("Is the shape in the picture a {value}?", "Is a {value} shown?"),
    "count": (
        "Is the number of {thing}s in the picture {value}?",
        "Does the picture show exactly {value} of the {thing}s?",
    ),
}
OPTION_FORMS = ("{}. {}\n", "({}) {}\n")
YES_NO_REQUEST = " Please answer yes or no."


class Sample(NamedTuple):
    """A question about an image; `answer` is a letter where there are options."""

    kind: Kind
    category: Category
    question: str
    options: tuple[str, ...]
    answer: str
    image: Image.Image


class Drill(NamedTuple):
    """A text, and answers in pairs: a value, and the letter, yes or no that it gets.

    `unforeseen` are the places of the values that come in no order.
    """

    text: str
    pieces: tuple[str, ...]
    unforeseen: frozenset[int]


def make_sample(random: Random, kind: Kind, category: Category) -> Sample:
    """Draw an image for one question and ask it; answers are spread evenly."""
    if category == "count":
        scene = draw_shapes(random, random.randint(1, MOST_SHAPES))
    elif category == "colour" and random.random() < 0.5:
        scene = draw_plain(random)
    else:
        scene = draw_shapes(random, 1)
    return ask(random, scene, kind, category)


def draw_scene(random: Random) -> Scene:
    """Draw an image for several questions; about a third are good for each kind."""
    chance = random.random()
    if chance < 0.15:
        return draw_plain(random)
    return draw_shapes(random, 1 if chance < 0.7 else random.randint(2, MOST_SHAPES))


def choose_category(random: Random, scene: Scene) -> Category:
    """Choose what can be asked about an image."""
    if scene.number == 0:
        return "colour"
    if scene.number > 1:
        return "count"
    return random.choices(CATEGORIES, [0.3, 0.5, 0.2])[0]


def ask(random: Random, scene: Scene, kind: Kind, category: Category) -> Sample:
    """Ask a question about an image, in words by chance."""
    value = _true_value(scene, category)
    # "shape" as a name says nothing about the answer, in all three categories.
    thing = "picture" if scene.shape is None else random.choice(["shape", scene.shape])
    if kind == "yes_no":
        return _ask_yes_no(random, scene, category, thing, value)
    question = random.choice(OPEN_QUESTIONS[category]).format(thing=thing)
    if kind == "open":
        return Sample(kind, category, question, (), value, scene.image)
    options = _draw_options(random, category, value)
    letter = LETTERS[options.index(value)]
    return Sample(kind, category, question, options, letter, scene.image)


def find_letters(random: Random, words: Sequence[str]) -> Drill:
    """List options and name each of them again, in another order, with its letter."""
    values = random.choice([*VALUES.values(), words])
    options = random.sample(values, min(random.choice([3, 4]), len(values)))
    pairs = list(zip(options, LETTERS, strict=False))
    random.shuffle(pairs)
    return _make_drill(_list_options(options, random.choice(OPTION_FORMS)), pairs)


def answer_with_letters(random: Random, sample: Sample, text: str) -> Drill:
    """Answer with the right option and its letter; then go through the others."""
    pairs = list(zip(sample.options, LETTERS, strict=False))
    random.shuffle(pairs)
    pairs.sort(key=lambda pair: pair[1] != sample.answer)
    return _make_drill(text + "Name the option, then the letter.", pairs, foreseen=1)


def check_values(random: Random, scene: Scene, category: Category) -> Drill:
    """Ask a question and go through all its values, each with yes or no behind it."""
    question = ask(random, scene, "open", category)
    values = random.sample(VALUES[category], len(VALUES[category]))
    pairs = [(one, "Yes" if one == question.answer else "No") for one in values]
    return _make_drill(f"{question.question} Yes or no?", pairs)


def _make_drill(
    text: str, pairs: Sequence[tuple[str, str]], foreseen: int = 0
) -> Drill:
    pieces = tuple(piece for pair in pairs for piece in pair)
    return Drill(text, pieces, frozenset(range(2 * foreseen, len(pieces), 2)))


def benchmark_prompt(sample: Sample) -> str:
    """Give the text that ms-vlmeval asks for such a row of a TSV.

    Source: build_prompt of ImageMCQDataset, ImageYORNDataset and ImageVQADataset.
    """
    if sample.kind == "yes_no":
        return sample.question
    if sample.kind == "open":
        return f"{sample.question}\nAnswer the question using a single word or phrase."
    return (
        f"Question: {sample.question}\nOptions:\n{_list_options(sample.options)}"
        "Please select the correct answer from the options above. \n"
    )


def other_prompt(random: Random, sample: Sample) -> str:
    """Give the question in another of the wordings that people use."""
    if sample.kind == "yes_no":
        bare = sample.question.removesuffix(YES_NO_REQUEST)
        return random.choice([bare, f"{bare} Yes or no?", f"{bare}\nAnswer yes or no."])
    question = random.choice(["", "Question: "]) + sample.question
    if sample.kind == "open":
        return question + random.choice(
            [
                "",
                "",
                " Answer in one word.",
                "\nAnswer the question using a single word or phrase.",
                "\nPlease answer directly with a single word or number.",
            ]
        )
    listed = _list_options(sample.options, random.choice(OPTION_FORMS))
    heading = random.choice(["", "Options:\n", "Choices:\n"])
    return f"{question}\n{heading}{listed}" + random.choice(
        [
            "",
            "Answer with the option letter only.",
            "Answer with the option's letter from the given choices directly.",
            "Please select the correct answer from the options above. \n",
        ]
    )


def _list_options(options: Sequence[str], form: str = "{}. {}\n") -> str:
    pairs = zip(LETTERS, options, strict=False)
    return "".join(form.format(letter, option) for letter, option in pairs)


def _true_value(scene: Scene, category: Category) -> str:
    if category == "colour":
        return scene.colour
    if category == "count":
        return str(scene.number)
    assert scene.shape is not None
    return scene.shape


def _ask_yes_no(
    random: Random, scene: Scene, category: Category, thing: str, value: str
) -> Sample:
    answer = random.choice(["Yes", "No"])
    if answer == "No":
        value = random.choice([other for other in VALUES[category] if other != value])
    form = random.choice(YES_NO_QUESTIONS[category])
    question = form.format(thing=thing, value=value) + YES_NO_REQUEST
    return Sample("yes_no", category, question, (), answer, scene.image)


def _draw_options(random: Random, category: Category, value: str) -> tuple[str, ...]:
    """Choose three or four options, one of them right, in an order by chance."""
    others = [other for other in VALUES[category] if other != value]
    options = [value, *random.sample(others, min(3, len(others)))]
    random.shuffle(options)
    return tuple(options)
