"""What keeps single video classes from being built or asked about, mended.

Each mend names the place in ms-vlmeval 0.0.20, below `vlmeval/`, that it answers.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.sandbox.inside.job import ContainedError

if TYPE_CHECKING:
    from collections.abc import Callable

UNZIP = re.compile(r"unzip -o (.+) -d (.+)")


def mend_unpacking(module: Any) -> None:
    """Answer dataset/videommmu.py:499: it makes a folder, and unpacks if there is none.

    So its videos stay in their archives. Here they are unpacked to where it looks.
    """
    upstream = module.get_cache_path

    def get_cache_path(repository: str) -> str | None:
        folder: str | None = upstream(repository)
        if folder is not None and not Path(folder, "videos").exists():
            for packed in sorted(Path(folder).glob("*.zip")):
                _unzip(packed, Path(folder, "videos"))
        return folder

    module.get_cache_path = get_cache_path


def mend_sound(_module: ModuleType) -> None:
    """Answer dataset/worldsense.py:88: the sound of all videos is written to files.

    Sound is not sent to models, and moviepy, which does it, is not here.
    """
    if "moviepy" in sys.modules or find_spec("moviepy") is not None:
        return
    sound = SimpleNamespace(write_audiofile=_nothing, close=_nothing)
    editor: Any = ModuleType("moviepy.editor")
    editor.VideoFileClip = lambda _path: SimpleNamespace(audio=sound, close=_nothing)
    sys.modules["moviepy"] = ModuleType("moviepy")
    sys.modules["moviepy.editor"] = editor


def _nothing(*_given: object, **_settings: object) -> None:
    pass


def mend_shell(module: Any) -> None:
    """Answer dataset/vcrbench.py:25, which unpacks with a shell's unzip."""

    def system(command: str) -> int:
        found = UNZIP.fullmatch(command)
        if found is None:
            raise ContainedError(f"the sandbox allows no {command}")
        _unzip(Path(found[1]), Path(found[2]))
        return 0

    module.os = SimpleNamespace(**{**vars(os), "system": system})


def mend_several_videos(module: Any) -> None:
    """Answer dataset/mvu_eval.py:136: its table lacks a column that all have.

    dataset/video_base.py:57 asserts that there is `video`; here it names them all.
    """
    upstream = module.MVUEval.prepare_dataset

    def prepare_dataset(self: Any, dataset: str) -> dict[str, str]:
        found: dict[str, str] = upstream(self, dataset)
        table = pd.read_csv(found["data_file"], sep="\t")
        if "video" not in table:
            table["video"] = table["video_paths"]
            table.to_csv(found["data_file"], sep="\t", index=False)
        return found

    module.MVUEval.prepare_dataset = prepare_dataset


def mend_folder(module: Any) -> None:
    """Answer dataset/v2pbench.py:118: frames are cut from videos in `videos/`.

    And :114: what comes from ModelScope is not unpacked.
    """
    upstream = module.V2PBench.prepare_dataset

    def prepare_dataset(self: Any, *given: Any) -> dict[str, str]:
        found: dict[str, str] = upstream(self, *given)
        if module.modelscope_flag_set():
            module.unzip_video(found["root"])
        return {**found, "root": str(Path(found["root"], "videos"))}

    module.V2PBench.prepare_dataset = prepare_dataset


def find_video(path: Path) -> Path:
    """Give the file that a class means, which may have another name.

    Some add `.mp4` for frames to what has it already, as they take the same column for
    the file itself (dataset/v2pbench.py:125 and :135, dataset/omtgbench.py:233 and
    :236, dataset/moviechat1k.py:137 and :143); and dataset/vdc.py looks in `video` for
    one (:231), in `videos` for the other (:228).
    """
    names = [path.name]
    if path.name.endswith(".mp4.mp4"):
        names.append(path.stem)
    folders = [path.parent]
    if path.parent.name in ("video", "videos"):
        folders += [path.parent.with_name("video"), path.parent.with_name("videos")]
    candidates = [folder / name for folder in folders for name in names]
    return next((each for each in candidates if each.exists()), path)


def _unzip(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)


AFTER: dict[str, Callable[[Any], None]] = {
    "vlmeval.dataset.videommmu": mend_unpacking,
    "vlmeval.dataset.worldsense": mend_sound,
    "vlmeval.dataset.vcrbench": mend_shell,
    "vlmeval.dataset.mvu_eval": mend_several_videos,
    "vlmeval.dataset.v2pbench": mend_folder,
}
