"""Where a dataset's class may look inside the sandbox, which has no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A branch that is not named is one of these.
DEFAULT_BRANCHES = {None, "main", "master"}


class Needed(BaseException):
    """A repository or file is missing; no `except Exception` of a class swallows it."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request.get("repository") or request["url"])
        self.request = request


@dataclass(slots=True, kw_only=True)
class Shelf:
    """The snapshots and files that a dataset's class may read.

    `hub` is the preferred one. Each snapshot is the request that it answers, with its
    `folder`; `files` are paths by their URL. `table` is the file of a dataset whose
    rows have a URL of their own. With `any_checksum` a table passes for the published
    one. `checksums` are those of the tables that the class looked at.
    """

    hub: str
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    table: str | None
    data_root: str
    any_checksum: bool
    checksums: dict[str, str] = field(default_factory=dict)

    def find(self, request: dict[str, Any]) -> str:
        """Return the folder of a snapshot; raises Needed."""
        for snapshot in self.snapshots:
            if request.items() <= snapshot.items():
                return str(snapshot["folder"])
        raise Needed(request)

    def find_file(self, url: str, name: str, md5: str | None = None) -> Path:
        """Return the file of an address, which the parent keeps as `name`; or Needed.

        `md5` is its checksum, where a class publishes one.
        """
        if url not in self.files:
            raise Needed({"url": url, "name": name, "md5": md5})
        return Path(self.files[url])

    def cached(self, repository: str, branch: str | None) -> str | None:
        """Return the folder of any snapshot of a repository's branch, if any."""
        branches = DEFAULT_BRANCHES if branch in DEFAULT_BRANCHES else {branch}
        for snapshot in self.snapshots:
            same = snapshot["repository"] == repository
            if same and snapshot["revision"] in branches:
                return str(snapshot["folder"])
        return None
