"""What ms-vlmeval gives as the address of a dataset, which is not always its file."""

from __future__ import annotations

import re
import urllib.parse
from typing import NamedTuple


class Address(NamedTuple):
    """The address of a file, None where there is none, and where it leads.

    `repository` is what an address without a file is the page of, `source` the host
    of a file, with the repository on a hub.
    """

    url: str | None = None
    repository: str = ""
    source: str = ""


def read_address(text: str) -> Address:
    """Read an address: of a file, or of the page about it or about its repository.

    Those of pages are dataset/worldvqa.py:239 and dataset/da2k.py:43.
    """
    if not text.startswith(("https://", "http://")):
        return Address()
    page = re.fullmatch(r"https://huggingface\.co/datasets/([^/]+/[^/]+)/?", text)
    if page is not None:
        return Address(repository=page[1])
    url = text.replace("/blob/", "/resolve/")
    return Address(url=url, source=_source(url))


def _source(url: str) -> str:
    address = urllib.parse.urlsplit(url)
    repository = re.match(r"/(?:api/v1/)?datasets/([^/]+/[^/]+)/", address.path)
    if repository is None:
        return address.netloc
    return f"{address.netloc}/{repository[1]}"
