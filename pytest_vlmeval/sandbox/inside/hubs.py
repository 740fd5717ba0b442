"""What ms-vlmeval asks of the hubs, answered with the snapshots that are on disk.

The sandbox has no network. A class that wants a repository or a file which is not on
the job's shelf ends with `Needed`; the parent brings it and calls again.
"""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.job import ContainedError, current_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    Patterns = list[str] | str | None
    Request = dict[str, Any]

# A branch that is not named is one of these.
DEFAULT_BRANCHES = {None, "main", "master"}


class Needed(BaseException):
    """A repository or file is missing; no `except Exception` of a class swallows it."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.get("repository") or request["url"])
        self.request = request


@dataclass(slots=True, kw_only=True)
class HubShelf:
    """The snapshots and files that a job may read, and which tables it looked at.

    `hub` is the preferred one. Each snapshot is the request that it answers, with its
    `folder`; `files` are paths by their URL. `table` is the file of a dataset whose
    rows have a URL of their own. With `any_checksum` a table passes for the published
    one.
    """

    hub: str
    snapshots: list[Request] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    table: Path | None = None
    any_checksum: bool = False
    checksums: dict[str, str] = field(default_factory=dict)

    def find(self, request: Request) -> str:
        """Give the folder of a snapshot; raises Needed."""
        for snapshot in self.snapshots:
            if request.items() <= snapshot.items():
                return str(snapshot["folder"])
        raise Needed(request)

    def find_file(self, url: str, name: str, md5: str | None = None) -> Path:
        """Give the file of an address, which the parent keeps as `name`; or Needed.

        `md5` is its checksum, where a class publishes one.
        """
        if url not in self.files:
            raise Needed({"url": url, "name": name, "md5": md5})
        return Path(self.files[url])

    def cached(self, repository: str, branch: str | None) -> str | None:
        """Give the folder of any snapshot of a repository's branch, if it is there."""
        branches = DEFAULT_BRANCHES if branch in DEFAULT_BRANCHES else {branch}
        for snapshot in self.snapshots:
            same = snapshot["repository"] == repository
            if same and snapshot["revision"] in branches:
                return str(snapshot["folder"])
        return None


def take_shelf(shelf: dict[str, Any] | None) -> HubShelf | None:
    """Read the shelf that the parent sends; None where nothing may be brought."""
    if shelf is None:
        return None
    table = shelf["table"]
    return HubShelf(
        hub=shelf["hub"],
        snapshots=shelf["snapshots"],
        files={each["url"]: each["path"] for each in shelf["files"]},
        table=Path(table) if table else None,
        any_checksum=shelf["any_checksum"],
    )


def own_folders(
    info: dict[str, Any], table: str | None, shelf: dict[str, Any] | None, *more: Path
) -> list[Path] | None:
    """Give the folders in which a dataset may open files; None for any.

    They are those of its table, of what was downloaded for it, where it is prepared,
    and this process's own.
    """
    if not info["confined"]:
        return None
    folders = [Path.cwd(), *more]
    if table is not None:
        folders += [Path(table).parent, Path(table).resolve()]
    if shelf is not None:
        data_root = Path(shelf["data_root"])
        # Some classes keep a table there, which may be a link: the user's, or one to an
        # earlier mirror.
        folders += [data_root, *filter(Path.is_symlink, data_root.glob("*.tsv"))]
        folders += [Path(each["path"]).resolve() for each in shelf["files"]]
        for snapshot in shelf["snapshots"]:
            folder = Path(snapshot["folder"]).absolute()
            # huggingface_hub links the files of a snapshot to those beside it.
            linked = folder.parent.name == "snapshots"
            folders.append(folder.parents[1] if linked else folder)
            if "source" in snapshot:
                folders += _mirrored_files(Path(snapshot["source"]))
    return [folder.resolve() for folder in folders]


def _mirrored_files(source: Path) -> list[Path]:
    """Give a mirror's folder, and what its own files link to elsewhere."""
    real = source.resolve()
    files = (path.resolve() for path in source.rglob("*") if path.is_symlink())
    return [real, *(file for file in files if not file.is_relative_to(real))]


def shelf_for(wanted: str) -> HubShelf:
    """Give the job's shelf; raises ContainedError where nothing may be brought."""
    shelf = current_job().shelf
    if shelf is None:
        raise ContainedError(f"the sandbox allows no download of {wanted}")
    return shelf


def _request(
    hub: str,
    repository: str,
    revision: str | None,
    allow_patterns: Patterns,
    ignore_patterns: Patterns,
) -> Request:
    return {
        "hub": hub,
        "repository": repository,
        "revision": revision,
        "allow": _as_list(allow_patterns),
        "ignore": _as_list(ignore_patterns),
    }


def _as_list(patterns: Patterns) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else patterns


def snapshot_download(
    repo_id: str,
    *,
    repo_type: str | None = None,
    revision: str | None = None,
    local_dir: str | None = None,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    **_transfer: object,
) -> str:
    """Stand in for huggingface_hub's function; `local_dir` gets links."""
    request = _request(
        "huggingface", repo_id, revision, allow_patterns, ignore_patterns
    )
    folder = shelf_for(repo_id).find(request)
    if local_dir is None:
        return folder
    _link_files(Path(folder), Path(local_dir), request)
    return local_dir


def _link_files(folder: Path, target: Path, request: Request) -> None:
    filter_files = import_module("huggingface_hub.utils").filter_repo_objects
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    ]
    for name in filter_files(
        files, allow_patterns=request["allow"], ignore_patterns=request["ignore"]
    ):
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to((folder / name).resolve())


def _dataset_snapshot_download(
    dataset_id: str,
    revision: str | None = None,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
) -> str:
    """Stand in for modelscope's function."""
    return shelf_for(dataset_id).find(
        _request("modelscope", dataset_id, revision, allow_patterns, ignore_patterns)
    )


def mend_hubs(module: Any) -> None:
    """Answer smp/misc.py:70 get_cache_path and the clients of both hubs.

    modelscope lacks what get_cache_path imports from it (:73), so that every build
    goes to the network; MVBench asks for a login (dataset/mvbench.py:186).
    """

    def get_cache_path(
        repo_id: str, branch: str | None = "main", repo_type: str = "datasets"
    ) -> str | None:
        return shelf_for(repo_id).cached(repo_id, branch)

    module.get_cache_path = get_cache_path
    client: Any = import_module("huggingface_hub")
    client.snapshot_download = snapshot_download
    client.login = lambda *_given, **_settings: None
    modelscope: Any = ModuleType("modelscope")
    modelscope.dataset_snapshot_download = _dataset_snapshot_download
    sys.modules["modelscope"] = modelscope


def mend_video_base(module: Any) -> None:
    """Answer dataset/video_base.py:45: where frames lie, and :174: tables."""

    def prepare_tsv(self: Any, url: str, file_md5: str | None = None) -> pd.DataFrame:
        shelf = current_job().shelf
        assert shelf is not None
        assert shelf.table is not None
        self.data_path = str(shelf.table)
        return pd.read_csv(shelf.table, sep="\t")

    module.LMUDataRoot = lambda: str(current_job().folder)
    module.VideoBaseDataset.prepare_tsv = prepare_tsv


def mend_collections(module: Any) -> None:
    """Answer dataset/video_concat_dataset.py:10: a method it needs not is abstract.

    None of MLVU, TempCompass and QBench_Video can be built without this.
    """
    module.ConcatVideoDataset.__abstractmethods__ = frozenset()


def mend_dsr(module: Any) -> None:
    """Answer dataset/dsrbench.py:62: without a snapshot it joins None to a path."""
    upstream = module.get_cache_path
    module.get_cache_path = lambda repo_id: upstream(repo_id) or ""


def mend_vdc(module: Any) -> None:
    """Answer dataset/vdc.py:173, which calls what it does not import."""
    misc: Any = import_module("vlmeval.smp.misc")
    module.modelscope_flag_set = misc.modelscope_flag_set


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, bytes, numbers and their containers; nothing that is called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # How the second protocol writes bytes.
        if (module_name, global_name) == ("_codecs", "encode"):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"it wants {module_name}.{global_name}")


def _load_videos(file: IO[bytes]) -> dict[str, bytes]:
    """Read a pickle of videos by name; raises VlmEvalError for anything else."""
    try:
        videos = _PlainUnpickler(file).load()
    except Exception as error:
        raise VlmEvalError(f"{file.name} is not a file of videos: {error}.") from error
    if not isinstance(videos, dict) or not all(
        isinstance(name, str) and name == Path(name).name and isinstance(data, bytes)
        for name, data in videos.items()
    ):
        raise VlmEvalError(
            f"{file.name} is not a file of videos: it should hold bytes by plain "
            "names, and nothing else."
        )
    return videos


def mend_pickled_videos(module: Any) -> None:
    """Answer dataset/mmbench_video.py:31: what a hub sent is unpickled."""
    module.pickle = SimpleNamespace(load=_load_videos)


AFTER: dict[str, Callable[[Any], None]] = {
    "vlmeval.dataset.video_base": mend_video_base,
    "vlmeval.dataset.video_concat_dataset": mend_collections,
    "vlmeval.dataset.dsrbench": mend_dsr,
    "vlmeval.dataset.vdc": mend_vdc,
    "vlmeval.dataset.mmbench_video": mend_pickled_videos,
    "vlmeval.dataset.videomme": mend_pickled_videos,
    "vlmeval.dataset.videott": mend_pickled_videos,
    "vlmeval.dataset.video_holmes": mend_pickled_videos,
}
