"""Runs in the environment that has torch and ms-vlmeval, for `bench/local.py`.

    PYTHON bench/local_inside.py loop ORDER    ms-vlmeval's own loop over its own class
    PYTHON bench/local_inside.py write ORDER   a checkpoint of random weights

ORDER is a JSON file. The first prints one JSON object: seconds and answers.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

INSIDE = Path(__file__).parents[1] / "pytest_vlmeval" / "models" / "inside"
sys.path.insert(0, str(INSIDE))


class Questions:
    """What ms-vlmeval's loop asks of a dataset."""

    dataset_name = "Questions"

    def __init__(self, prompts: list[dict[str, Any]]) -> None:
        pandas: Any = importlib.import_module("pandas")
        self._prompts = prompts
        self.data = pandas.DataFrame({"index": range(len(prompts))})

    def __len__(self) -> int:
        return len(self._prompts)

    def dump_image(self, line: Any) -> list[str]:
        """Return the images of a row."""
        parts = self._prompts[line["index"]]["turns"][0]
        return [part["path"] for part in parts if part["kind"] == "image"]

    def build_prompt(self, line: Any) -> list[dict[str, str]]:
        """Return a prompt in ms-vlmeval's form."""
        return [
            {"type": part["kind"], "value": part.get("text") or part["path"]}
            for part in self._prompts[line["index"]]["turns"][0]
        ]


def loop(order: dict[str, Any]) -> dict[str, Any]:
    """Answer by `vlmeval.inference.infer_data`, which asks one by one."""
    if importlib.util.find_spec("flash_attn") is None:
        _use_torch_attention()
    adapter = importlib.import_module("vlmeval_model").VlmevalModel(order)
    # The loop takes a model that is made already; naming all others takes a minute.
    names: Any = ModuleType("vlmeval.config")
    names.supported_VLM = {}
    sys.modules["vlmeval.config"] = names
    infer_data = importlib.import_module("vlmeval.inference").infer_data
    dataset = Questions(order["prompts"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.pkl"
        # What only the first answer pays for.
        adapter._model.generate(dataset.build_prompt({"index": 0}))
        started = time.perf_counter()
        infer_data(adapter._model, "model", folder, dataset, str(out))
        seconds = time.perf_counter() - started
        found = importlib.import_module("vlmeval.smp").load(str(out))
    answers = [found[index] for index in dataset.data["index"]]
    return {"seconds": seconds, "answers": answers}


def _use_torch_attention() -> None:
    """Let the class load that names flash attention, which is not installed."""
    transformers: Any = importlib.import_module("transformers")
    given = transformers.PreTrainedModel.from_pretrained.__func__

    def from_pretrained(owner: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("attn_implementation") == "flash_attention_2":
            options["attn_implementation"] = "sdpa"
        return given(owner, *arguments, **options)

    transformers.PreTrainedModel.from_pretrained = classmethod(from_pretrained)


def write(order: dict[str, Any]) -> None:
    """Make the model of a configuration with random weights, in 16 bits."""
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = AutoConfig.from_pretrained(order["path"])
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration(config)
    model.save_pretrained(order["path"])


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=["loop", "write"])
    parser.add_argument("order", type=Path, metavar="ORDER")
    given = parser.parse_args()
    order = json.loads(given.order.read_text(encoding="utf-8"))
    if given.work == "write":
        write(order)
        return
    # After whatever libraries have printed.
    print(f"\n{json.dumps(loop(order))}", flush=True)


if __name__ == "__main__":
    main()
