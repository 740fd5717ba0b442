"""Draws, trains, exports and measures, all from nothing.

python -m demo_model OUT [--seed N] [--steps N] [--threads N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from demo_model.checkpoint import write_checkpoint
from demo_model.evaluate import report_accuracy
from demo_model.export import export_package, export_weights, round_weights
from demo_model.tables import write_tables
from demo_model.tokens import train_tokenizer
from demo_model.train import STEPS, train


def main() -> None:
    """Fill OUT with the package's files, the weights and the checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m demo_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training")
    # One is nearly as fast with matrices so small, faster where others work too, and
    # what the files that ship were made with.
    parser.add_argument("--threads", type=int, default=1, help="that torch may use")
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(arguments.threads)
    package = arguments.out / "demo"
    weights = arguments.out / "weights.safetensors"
    package.mkdir(parents=True, exist_ok=True)
    write_tables(package)
    tokenizer = train_tokenizer(arguments.seed)
    model = train(tokenizer, arguments.seed, arguments.steps)
    round_weights(model)
    export_weights(model, weights)
    export_package(model, tokenizer, package)
    write_checkpoint(arguments.out / "checkpoint", weights, package / "tokenizer.json")
    print(report_accuracy(package))
    print(f"wrote {arguments.out} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
