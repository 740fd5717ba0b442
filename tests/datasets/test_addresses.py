"""What the address of a dataset says: a file, a page about one, a repository."""

from __future__ import annotations

import pytest

from pytest_vlmeval.datasets.catalog import Address, read_address

HUB = "https://huggingface.co/datasets/depth-anything/DA-2K"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Address()),
        ("None", Address()),
        ("HiPhO/IPhO_2024", Address()),
        (
            "https://opencompass.openxlab.space/utils/VLMEval/OST.tsv",
            Address(
                url="https://opencompass.openxlab.space/utils/VLMEval/OST.tsv",
                source="opencompass.openxlab.space",
            ),
        ),
        (HUB, Address(repository="depth-anything/DA-2K")),
        (f"{HUB}/", Address(repository="depth-anything/DA-2K")),
        (
            f"{HUB}/blob/main/data.tsv",
            Address(
                url=f"{HUB}/resolve/main/data.tsv",
                source="huggingface.co/depth-anything/DA-2K",
            ),
        ),
        (
            f"{HUB}/resolve/main/data.tsv",
            Address(
                url=f"{HUB}/resolve/main/data.tsv",
                source="huggingface.co/depth-anything/DA-2K",
            ),
        ),
        (
            "https://www.modelscope.cn/api/v1/datasets/a/b/repo?FilePath=data.tsv",
            Address(
                url="https://www.modelscope.cn/api/v1/datasets/a/b/repo?FilePath=data.tsv",
                source="www.modelscope.cn/a/b",
            ),
        ),
    ],
)
def test_what_an_address_leads_to(text: str, expected: Address) -> None:
    assert read_address(text) == expected
