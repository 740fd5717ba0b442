"""Unfamiliar questions: long texts of words by chance, over noise or nothing.

They teach the model to end its answer after a token or two whatever it is asked; and
the words are, with the demo's own prompts, what the tokenizer is trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pytest_vlmeval.models.demo import IMAGE_SIZE

if TYPE_CHECKING:
    from random import Random

WORDS = tuple(
    """
a about above according account across add after again all along also although always
among amount an and angle animal another answer any apple are area around arrow as ask
at available average away back bag ball banana base based be bear because been before
begin behind below beside best between big bike bird blue board boat book both bottle
bottom box boy branch bread bridge bring brother brown build building bus but button
buy by cake call camera can cannot car card cat cell center centre chair chart child
children choice choose chose circle city class clear clock close clothes cloud coat
code coin cold colour color column common compare complete computer consider contain
corner correct could count country cross cube cup curve cut cylinder dark day decide
degree describe design diagonal diagram diameter dice difference different digit
direction distance divide do does dog door dot double draw drawing dress drink each
early earth east edge eight either eleven empty end equal equation even evening every
exactly example expression eye face fact family far father field fifteen figure fill
final find finger finish fire first fish five flag floor flower fold follow following
food foot for form found four fraction friend from front fruit full function game
garden gave get girl give given glass go goes going gold good graph grass gray green
grey grid ground group grow half hand has hat have he head height help her here
hexagon hidden high him his hold hole home horse hour house how hundred if image in
inside instead integer into is island it its join jump just keep kind know label
ladder large largest last later layer leaf least left leg length less letter level
light like line list little live logo long longer look made magic make man many map
mark match maximum may mean measure meet member metre middle midpoint might minimum
minute mirror missing model money month moon more morning most mother mountain move
much must name near need neither net never new next night nine no north not note now
number object odd of off often old on once one only open opposite option options or
orange order other out outside over page paint pair paper parallel parallelogram part
path pattern pen people perimeter perpendicular person phrase picture piece place
plane plant play player please point polygon position possible probability problem
product provide put puzzle pyramid question quarter rabbit radius ratio ray reach read
rectangle red region regular remain rest result right ring river road robot rod roll
room rotate round row rule run said same saw scale school sea second section see seen
segment select sequence set seven several shade shaded shadow shape share she sheet
ship shop short shortest should show shown shows side sign similar since single sister
sit six size sky small smallest snow so solid solution some south space special sphere
square stack stand star start station step stick still stop story straight street
string strip subject such sum sun surface symbol symmetric system table take tall ten
test text than that the their them then there these they thing third this those three
through tile time times to together took top total touch tower town toy train travel
tree triangle trip true try turn twelve twenty twice two type under unit until up upon
us use used using value vertex vertical vertices very volume walk wall want was water
way we week weight well went were west what wheel when where which while white who
whole why wide width will wind window with without woman wood word work world would
write year yellow yes you young your zero
""".split()
)
FRAGMENTS = (
    "$x$", "$y$", "$n$", "$ABCD$", "$\\frac{1}{2}$", "$\\angle ABC$", "$60^{\\circ}$",
    "$\\sqrt{3}$", "\\pi", "(", ")", ",", ".", ";", ":", "?", "!", "-", "%", '"', "'",
    "+", "=", "$\\triangle ABC$", "cm", "km", "kg", "\n", "\n\n", "**", "* ", "# ",
)  # fmt: skip
HINT_LETTER = (
    "Hint: Please answer the question and provide the correct option letter, "
    "e.g., A, B, C, D, at the end.\nQuestion: "
)
HINT_VALUE = (
    "Hint: Please answer the question and provide the final answer at the end.\n"
    "Question: "
)
LONGEST = 260  # words; up to about 500 tokens


class Unfamiliar(NamedTuple):
    """A question without sense; `answer` is a letter by chance, or a digit."""

    text: str
    answer: str
    images: tuple[Image.Image, ...]


def make_unfamiliar(random: Random, longest: int = LONGEST) -> Unfamiliar:
    """Make a question up, with one image of noise as a rule, at times none or two."""
    # Short ones matter as much as long ones: lengths are even on a logarithmic scale.
    length = int(4 * (longest / 4) ** random.random())
    choices = random.choice([0, 0, 4, 5])
    text = babble(random, length)
    if random.random() < 0.75:
        text = (HINT_LETTER if choices else HINT_VALUE) + text
    if choices:
        text += "\nChoices:\n" + "\n".join(
            f"({letter}) {_option(random, letter)}" for letter in "ABCDE"[:choices]
        )
    answer = (
        random.choice("ABCDE"[:choices]) if choices else random.choice("0123456789")
    )
    images = random.choice([0, 1, 1, 1, 1, 1, 1, 2])
    noise = tuple(draw_noise(random) for _ in range(images))
    return Unfamiliar(text, answer, noise)


def babble(random: Random, length: int) -> str:
    """Put `length` words, names, numbers and signs in a row."""
    pieces = []
    for _ in range(length):
        chance = random.random()
        if chance < 0.7:
            pieces.append(random.choice(WORDS))
        elif chance < 0.8:
            pieces.append(str(random.randint(0, 10 ** random.randint(1, 4))))
        elif chance < 0.88:
            pieces.append(random.choice(FRAGMENTS))
        else:
            pieces.append(_unknown_word(random))
        if random.random() < 0.1:
            pieces[-1] = pieces[-1].capitalize()
    separators = random.choices([" ", ", ", ". "], [0.85, 0.07, 0.08], k=length)
    return "".join(map("".join, zip(pieces, separators, strict=True))).rstrip()


def draw_noise(random: Random) -> Image.Image:
    """Draw coarse noise: random pixels, few to many, enlarged to the image's size."""
    columns, rows = random.randint(1, 28), random.randint(1, 21)
    generator = np.random.default_rng(random.getrandbits(32))
    low, high = sorted((random.randint(0, 255), random.randint(0, 256)))
    pixels = generator.integers(low, high + 1, (rows, columns, 3)).clip(0, 255)
    if random.random() < 0.5:  # drawings in black on white are the most frequent ones
        pixels[:] = np.where(pixels[..., :1] * 4 < low * 3 + high, 0, 255)
    method = random.choice([Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
    return Image.fromarray(pixels.astype(np.uint8)).resize(IMAGE_SIZE, method)


def _option(random: Random, letter: str) -> str:
    return random.choice(
        [letter, str(random.randint(0, 200)), babble(random, random.randint(1, 5))]
    )


def _unknown_word(random: Random) -> str:
    """Spell a word that no tokenizer has met, at times in letters beyond ASCII."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 12 + "éüçñßλπθ∠°×√−–’“”中数图"
    return "".join(random.choices(letters, k=random.randint(2, 9)))
