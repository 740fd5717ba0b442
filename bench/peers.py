"""The commands of other programs for the work of `throughput.py`, where installed.

Each takes the interpreter of an environment in which it is installed. They get the same
samples, endpoint and number of connections, greedy answers, and no judge.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# ms-vlmeval's images lie in the table, as base64: more than csv takes by itself.
csv.field_size_limit(sys.maxsize)


class Peer(NamedTuple):
    """One command with its environment."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]


def evalscope(
    python: Path, table: Path, url: str, model: str, concurrency: str
) -> Peer:
    """EvalScope's own engine, with its benchmark for tables of one's own."""
    folder = table.parent / "evalscope"
    folder.mkdir(exist_ok=True)
    with (
        table.open(encoding="utf-8", newline="") as source,
        (folder / "throughput.jsonl").open("w", encoding="utf-8") as target,
    ):
        for row in csv.DictReader(source, delimiter="\t"):
            target.write(json.dumps(_as_messages(row)) + "\n")
    command = [str(python), "-m", "evalscope.cli.cli", "eval"]
    command += [f"--model={model}", f"--api-url={url}", "--api-key=EMPTY"]
    command += ["--eval-type=openai_api", "--datasets", "general_vqa"]
    arguments = {"local_path": str(folder), "subset_list": ["throughput"]}
    command += ["--dataset-args", json.dumps({"general_vqa": arguments})]
    command += [f"--eval-batch-size={concurrency}"]
    command += ["--generation-config", json.dumps({"temperature": 0})]
    command += [f"--work-dir={folder / 'work'}"]
    return Peer("EvalScope", command, {})


def _as_messages(row: dict[str, str]) -> dict[str, object]:
    options = "\n".join(f"{letter}. {row[letter]}" for letter in "ABCD")
    text = f"Question: {row['question']}\nOptions:\n{options}\nAnswer with a letter."
    image = {"url": f"data:image/jpeg;base64,{row['image']}"}
    content = [
        {"type": "image_url", "image_url": image},
        {"type": "text", "text": text},
    ]
    return {
        "messages": [{"role": "user", "content": content}],
        "answer": row["answer"],
    }


def ms_vlmeval(
    python: Path, table: Path, url: str, model: str, concurrency: str
) -> Peer:
    """ms-vlmeval's command for served models; exact matching, as it is without keys."""
    folder = table.parent / "ms-vlmeval"
    folder.mkdir(exist_ok=True)
    shutil.copy(table, folder / table.name)
    command = [str(python), "-m", "vlmeval", "--api-mode", "--data", table.stem]
    command += ["--model", model, "--base-url", url, "--temperature", "0"]
    command += ["--api-nproc", concurrency, "--judge", "exact_matching"]
    command += ["--work-dir", str(folder / "work")]
    environment = {"LMUData": str(folder), "PATH": os.environ["PATH"]}
    return Peer("ms-vlmeval", command, environment)
