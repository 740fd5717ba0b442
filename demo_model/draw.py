"""The images: plain colours, and one to four shapes on a background."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw

from pytest_vlmeval.models.demo import IMAGE_SIZE

if TYPE_CHECKING:
    from random import Random

COLOURS = {
    "red": (215, 30, 30),
    "green": (30, 165, 40),
    "blue": (35, 50, 215),
    "yellow": (235, 220, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
GREY = (128, 128, 128)
SHAPES = ("circle", "square", "triangle")
MOST_SHAPES = 4
COLOUR_JITTER = 20  # added to or taken from each channel, of 255
GAP = 4  # pixels between two shapes, and between a shape and the edge
WIDTH, HEIGHT = IMAGE_SIZE


class Scene(NamedTuple):
    """An image and what is to be seen in it; a plain one has no shape, number 0."""

    image: Image.Image
    colour: str
    shape: str | None
    number: int


def draw_plain(random: Random) -> Scene:
    """Fill the image with one colour."""
    colour = random.choice(list(COLOURS))
    image = Image.new("RGB", IMAGE_SIZE, _jitter(random, COLOURS[colour]))
    return Scene(image, colour, None, 0)


def draw_shapes(random: Random, count: int) -> Scene:
    """Draw `count` shapes of one kind and colour that neither touch nor overlap."""
    colour = random.choice(list(COLOURS))
    shape = random.choice(SHAPES)
    background = random.choice([GREY, *(COLOURS[c] for c in COLOURS if c != colour)])
    image = Image.new("RGB", IMAGE_SIZE, _jitter(random, background))
    canvas = ImageDraw.Draw(image)
    for x, y, radius in _place(random, count):
        _draw_shape(canvas, shape, x, y, radius, _jitter(random, COLOURS[colour]))
    return Scene(image, colour, shape, count)


def _jitter(random: Random, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (
        min(255, max(0, channel + random.randint(-COLOUR_JITTER, COLOUR_JITTER)))
        for channel in colour
    )
    return red, green, blue


def _place(random: Random, count: int) -> list[tuple[int, int, int]]:
    """Choose centres and radii, in pixels, of shapes that stay clear of each other."""
    smallest, largest = (12, 34) if count == 1 else (9, 15)
    placed: list[tuple[int, int, int]] = []
    for attempt in itertools.count(1):
        if attempt % 100 == 0:  # large shapes in the middle can leave no room
            placed.clear()
        radius = random.randint(smallest, largest)
        margin = radius + GAP
        x = random.randint(margin, WIDTH - 1 - margin)
        y = random.randint(margin, HEIGHT - 1 - margin)
        # Squares of that radius, not circles: the corners have to stay clear too.
        if all(
            max(abs(x - other_x), abs(y - other_y)) >= radius + other + GAP
            for other_x, other_y, other in placed
        ):
            placed.append((x, y, radius))
        if len(placed) == count:
            break
    return placed


def _draw_shape(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    x: int,
    y: int,
    radius: int,
    colour: tuple[int, int, int],
) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif shape == "square":
        canvas.rectangle(box, fill=colour)
    else:
        corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        canvas.polygon(corners, fill=colour)
