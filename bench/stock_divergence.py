"""Stock torch beside dettriton: the same recipe under several CPU environments. How many different weights come out?

    python bench/stock_divergence.py [--epochs 3] [--recipe zoo/recipes/med_cnn.digits.toml]

The stock twin is the same model with the same initial weights, batches and learning rates, computed by torch.nn,
torch.nn.functional.cross_entropy and torch.optim, under torch.use_deterministic_algorithms(True).
Exit code 0: dettriton gave one set of weights. 1: it did not. 2: it cannot run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cpu_matrix
import torch
from cpu_matrix import ENVIRONMENTS, MORE_ENVIRONMENTS, Environment, runs_here
from reporting import header, print_table, result_path, write_json

from dettriton import data
from dettriton.digest import digest
from dettriton.errors import DettritonError
from dettriton.train import load_recipe, score
from dettriton.train._run import Run
from dettriton.train.trace import float_bits

ONE_RESULT, SEVERAL, CANNOT_RUN = 0, 1, 2
DIGITS = Path(__file__).parent.parent / "zoo" / "recipes" / "med_cnn.digits.toml"
_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_stock(model: torch.nn.Module) -> torch.nn.Module:
    """Turn every module of ``dettriton.nn`` inside ``model`` into the class of torch.nn that it derives from."""
    for module in model.modules():
        kind = type(module)
        if kind.__module__.startswith("dettriton.nn"):
            module.__class__ = next(k for k in kind.__mro__ if k.__module__.startswith("torch.nn"))
    return model


class StockRun(Run):
    """A run whose model, loss and optimizer are stock torch's; everything else is the recipe's."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        make_stock(self.model)
        settings = {k: v for k, v in self.recipe.to_dict()["optimizer"].items() if k != "name"}
        self.optimizer = _OPTIMIZERS[self.recipe.optimizer.name](self.model.parameters(), **settings)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self.recipe.train.label_smoothing
        return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)


RUNS = {"stock": StockRun, "dettriton": Run}


def train_here(which: str, recipe_path: Path, epochs: int, data_dir: str | None) -> dict[str, Any]:
    """Train in this process: the weights' digest, the bits of every loss, and the test metrics."""
    recipe = load_recipe(recipe_path).with_epochs(epochs)
    splits = data.load(recipe.data.name, data_dir)
    run = RUNS[which](recipe, splits, "cpu")
    losses = [float_bits(run.step(step)) for step in range(run.total_steps)]
    metrics = score(run.model, splits["test"]).to_dict()
    return {"init": run.init_digest, "weights": digest(run.model), "losses": losses, "test": metrics}


def train_there(which: str, environment: Environment, options: list[str]) -> dict[str, Any]:
    """:func:`train_here` in a process of an environment."""
    return json.loads(cpu_matrix.output(environment, [__file__, *options, "--worker", which]))


def first_difference(a: list[str], b: list[str]) -> int | None:
    """The first index at which two equally long lists differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)


def summary(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """How many different initial and trained weights each of the two gave."""
    return {
        which: {k: len({result[k] for result in by_environment.values()}) for k in ("init", "weights")}
        for which, by_environment in results.items()
    }


def rows(results: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """The table: for each environment both digests, and where stock torch's losses leave those of the first row."""
    found = []
    for name, stock in results["stock"].items():
        step = first_difference(next(iter(results["stock"].values()))["losses"], stock["losses"])
        ours = results["dettriton"][name]["weights"][:12]
        leaves = "never" if step is None else f"step {step}"
        found.append((name, stock["weights"][:12], leaves, f"{stock['test']['acc']:.4f}", ours))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison, or with ``--worker`` one training of it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=DIGITS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data-dir", help="folder with the official data files")
    parser.add_argument("--out", type=Path, help="JSON file; by default one in bench/results/ named after the machine")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--worker", choices=[*RUNS], help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    try:
        if parsed.worker:
            torch.use_deterministic_algorithms(True)
            print(json.dumps(train_here(parsed.worker, parsed.recipe, parsed.epochs, parsed.data_dir)))
            return ONE_RESULT
        options = ["--recipe", str(parsed.recipe), "--epochs", str(parsed.epochs)]
        options += ["--data-dir", parsed.data_dir] if parsed.data_dir else []
        results = _train_all(options)
    except subprocess.CalledProcessError as error:
        print(f"dettriton: a training failed: {' '.join(error.stderr.split())[-400:]}", file=sys.stderr)
        return CANNOT_RUN
    except (DettritonError, OSError) as error:
        print(f"dettriton: {error}", file=sys.stderr)
        return CANNOT_RUN
    content = header("stock_divergence")
    content |= {"recipe": parsed.recipe.stem, "epochs": parsed.epochs, "distinct": summary(results), "results": results}
    write_json(parsed.out or result_path("stock_divergence", content["environment"]), content)
    columns = ("environment", "stock torch", "its losses differ from", "test ACC", "dettriton")
    print_table("Weights after the same recipe", columns, rows(results), markdown=parsed.markdown)
    distinct = content["distinct"]
    print(
        f"different weights: stock torch {distinct['stock']['weights']}, dettriton {distinct['dettriton']['weights']}"
    )
    return ONE_RESULT if distinct["dettriton"]["weights"] == 1 else SEVERAL


def _train_all(options: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    results: dict[str, dict[str, dict[str, Any]]] = {which: {} for which in RUNS}
    for environment in filter(runs_here, (*ENVIRONMENTS, *MORE_ENVIRONMENTS)):
        for which in RUNS:
            found = train_there(which, environment, options)
            results[which][environment.name] = found
            print(f"{environment.name:34} {which:10} {found['weights'][:12]}", file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
