"""Brings a repository into the cache of its hub's own client, and prints where it is.

Run as `SANDBOX_PYTHON -I -X utf8 hub_client.py REQUEST`, outside of the containment and
with the user's environment: HF_ENDPOINT, HF_TOKEN, MODELSCOPE_CACHE, proxies and all
else that the clients read holds. The last line of the output is JSON: the `folder`,
or an `error`; for a request that is `listed`, the sizes of all `files` in bytes and
the `commit`, "" where the hub has none.
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


def list_files(hub: str, repository: str, revision: str | None) -> dict[str, Any]:
    """Return the files of a repository, and the commit that they are of."""
    if hub == "modelscope":
        api = import_module("modelscope_hub").HubApi()
        listed = api.list_repo_files(repository, "dataset", revision=revision)
        sizes = {each.path: each.size for each in listed if each.type == "blob"}
        return {"files": sizes, "commit": ""}
    info = (
        import_module(CLIENTS[hub])
        .HfApi()
        .dataset_info(repository, revision=revision, files_metadata=True)
    )
    sizes = {each.rfilename: each.size or 0 for each in info.siblings}
    return {"files": sizes, "commit": info.sha}


def main(request: dict[str, Any]) -> None:
    """Print the answer to one request."""
    try:
        if request.pop("listed", False):
            wanted = (request[name] for name in ("hub", "repository", "revision"))
            answer = list_files(*wanted)
        else:
            answer = {"folder": bring(**request)}
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        answer = {"error": reason[:LONGEST_REASON]}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
