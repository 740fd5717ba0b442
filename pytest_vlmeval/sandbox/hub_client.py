"""Brings a repository into the cache of its hub's own client, and prints where it is.

Run as `SANDBOX_PYTHON -I -X utf8 hub_client.py REQUEST`, outside of the containment and
with the user's environment: HF_ENDPOINT, HF_TOKEN, MODELSCOPE_CACHE, proxies and all
else that the clients read holds. The last line of the output is JSON: the `folder`,
or an `error`.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

LONGEST_REASON = 400
CLIENTS = {
    "huggingface": "huggingface_hub",
    "modelscope": "modelscope.hub.snapshot_download",
}


def bring(
    hub: str,
    repository: str,
    revision: str | None,
    allow: list[str] | None,
    ignore: list[str] | None,
    offline: bool,
) -> str:
    """Return the folder of a repository's files, downloading what is missing."""
    client = import_module(CLIENTS[hub])
    folder = client.snapshot_download(
        repository,
        repo_type="dataset",
        revision=revision,
        allow_patterns=allow,
        ignore_patterns=ignore,
        local_files_only=offline,
    )
    return str(folder)


def main(request: dict[str, Any]) -> None:
    """Print the answer to one request."""
    try:
        answer = {"folder": bring(**request)}
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        answer = {"error": reason[:LONGEST_REASON]}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
