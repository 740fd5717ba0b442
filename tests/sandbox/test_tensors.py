"""NumPy in the place of torch: a frame comes back as it was."""

from __future__ import annotations

import numpy as np

from pytest_vlmeval.sandbox.inside.media import Compose, Tensor, ToPILImage, split


def test_frames_are_stacked_and_taken_apart() -> None:
    # Two frames of all 256 levels, their channels behind one another.
    levels = np.arange(2 * 3 * 256, dtype=np.int64).reshape(1, 256, 6) % 256
    frames = levels.astype(np.uint8)
    steps = [
        lambda array: Tensor(array).permute(2, 0, 1).contiguous(),
        lambda tensor: tensor.float().div(255),
    ]
    stacked = Compose(steps)(frames)
    assert stacked.size(0) == 6
    parts = split(stacked, 3)
    assert [part.size(0) for part in parts] == [3, 3]
    for number, part in enumerate(parts):
        image = np.asarray(ToPILImage()(part)).astype(int)
        whole = frames[..., 3 * number : 3 * number + 3].astype(int)
        assert (image == whole).all()
