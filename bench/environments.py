"""The CPU matrix: zoo entries trained under each environment of this machine. Is there one digest a row of entries?

    python bench/environments.py [--entries med_cnn.digits ...] [--data-dir DIR] [--python OTHER/bin/python]

The entries are the released ones unless others of the zoo's recipes are named. Every training is a process of its own.
Results are written as they come, so the matrix can be interrupted and goes on where it was; a result counts for the
contract, the recipe and the versions it was made with.
Environments that ask for instructions which this CPU does not have are left out.
Exit code 0: one digest for each entry, the released one if there is one. 1: not. 2: something could not run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cpu_matrix
from cpu_matrix import ENVIRONMENTS, FIRST, OF_COMPILED_LOOPS, RESUMED, Environment
from reporting import header, print_table, read_json, result_path, write_json

import dettriton
from dettriton import zoo
from dettriton.errors import DettritonError
from dettriton.train import load_recipe

ONE_DIGEST, DIFFERENT, CANNOT_RUN, INTERRUPTED = 0, 1, 2, 130
COMPARED = ("dataset_sha256", "init_digest", "trace", "weights_digest")
RECIPES = Path(zoo.__file__).parent / "recipes"
_COMMAND_LINE = "from dettriton.cli import main; main()"
_GUESSED_SECONDS = 20.0
_ATTEMPTS = 6


@dataclass(frozen=True)
class Job:
    """One training: an entry under an environment."""

    entry: str
    environment: Environment
    facts: dict[str, Any]

    @property
    def recipe(self) -> Path:
        return RECIPES / f"{self.entry}.toml"

    def identity(self) -> dict[str, Any]:
        """What a result must have been made with to count for this job."""
        return {
            "bitspec": dettriton.BITSPEC,
            "recipe_digest": load_recipe(self.recipe).digest(),
            "variables": dict(self.environment.variables),
            "facts": self.facts,
        }


class Matrix:
    """The results by entry and environment, kept in a file that is whole at any moment."""

    def __init__(self, path: Path, content: dict[str, Any]):
        self._path, self._lock = path, threading.Lock()
        self.content = content | {"results": read_json(path).get("results", {})}

    def get(self, entry: str, environment: str) -> dict[str, Any]:
        """A result, empty if there is none."""
        return self.content["results"].get(entry, {}).get(environment, {})

    def is_done(self, job: Job) -> bool:
        """Whether the file holds a finished result of exactly this job."""
        found = self.get(job.entry, job.environment.name)
        # a kill before the first kept step proves nothing
        killed = all(kill["traced_steps"] for kill in found.get("kills", []))
        return "weights_digest" in found and killed and all(found.get(k) == v for k, v in job.identity().items())

    def put(self, job: Job, result: dict[str, Any]) -> None:
        """Keep a result and write the file."""
        with self._lock:
            self.content["results"].setdefault(job.entry, {})[job.environment.name] = job.identity() | result
            write_json(self._path, self.content)


def train_command(job: Job, folder: Path, data_dir: str | None) -> list[str]:
    """The command that trains a job's recipe, or goes on with it."""
    data = [] if data_dir is None else ["--data-dir", data_dir]
    options = ["--out", str(folder), "--resume", "--json", "--checkpoint-steps", "5", *data]
    return [job.environment.python, "-c", _COMMAND_LINE, "train", str(job.recipe), *options]


def run_job(job: Job, data_dir: str | None, expected_seconds: float, moments: random.Random) -> dict[str, Any]:
    """Train; the digests, or ``{"problem": ...}``.

    Args:
        expected_seconds: how long it takes uninterrupted, so that kills strike in the middle.
        moments: where the moments of the kills come from.
    """
    for _ in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory() as scratch:
            started = time.monotonic()
            command = train_command(job, Path(scratch, "run"), data_dir)
            kills = [
                killed
                for _ in range(job.environment.kills)
                if (killed := _kill(job, command, expected_seconds * moments.uniform(0.0, 0.3), Path(scratch, "run")))
            ]
            if len(kills) < job.environment.kills:
                expected_seconds /= 2
                continue
            done = subprocess.run(command, env=job.environment.process_variables(), capture_output=True, text=True)
            seconds = round(time.monotonic() - started, 1)
            if done.returncode != 0:
                said = " ".join(done.stderr.split())[-400:] or f"it ended with exit code {done.returncode}"
                return {"problem": said, "seconds": seconds}
            found = json.loads(done.stdout)
            kept = {k: found[k] for k in (*COMPARED, "best_epoch", "test")}
            return kept | {"seconds": seconds} | ({"kills": kills} if job.environment.kills else {})
    return {"problem": f"the training was always over before it could be killed {job.environment.kills} times"}


def _kill(job: Job, command: list[str], seconds: float, folder: Path) -> dict[str, Any] | None:
    """Start, and kill ``seconds`` after the first steps were kept; None if the training was over before."""
    trace = folder / "trace.jsonl"
    kept, started = _size(trace), time.monotonic()
    process = subprocess.Popen(
        command, env=job.environment.process_variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and _size(trace) <= kept:
            time.sleep(0.02)
        process.wait(seconds)
        return None
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        after = round(time.monotonic() - started, 2)
        return {"after_seconds": after, "traced_steps": trace.read_bytes().count(b"\n")}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def expected_digests(matrix: Matrix, entry: str, environments: list[str]) -> dict[str, str]:
    """What every environment should give: the released digests, or those of the first environment that has any."""
    if entry in zoo.names():
        row = zoo.entry(entry).to_dict()
        return {k: row[k] for k in COMPARED}
    results = (matrix.get(entry, name) for name in environments)
    return next(({k: r[k] for k in COMPARED} for r in results if "weights_digest" in r), {})


def verdicts(matrix: Matrix, entry: str, environments: list[str]) -> Iterator[str]:
    """``same <digest>``, ``DIFFERENT <digest>``, ``cannot run`` or nothing for each environment."""
    expected = expected_digests(matrix, entry, environments)
    for name in environments:
        result = matrix.get(entry, name)
        if "weights_digest" in result:
            same = all(result[k] == expected[k] for k in COMPARED)
            yield f"{'same' if same else 'DIFFERENT'} {result['weights_digest'][:12]}"
        else:
            yield "cannot run" if "problem" in result else ""


def run_matrix(matrix: Matrix, jobs: list[Job], data_dir: str | None, workers: int, seed: int) -> None:
    """Train every job that the matrix does not hold yet."""
    moments = random.Random(seed)
    pending = [job for job in jobs if not matrix.is_done(job)]
    print(f"{len(jobs) - len(pending)} of {len(jobs)} results are there already", file=sys.stderr)

    def run(job: Job) -> None:
        expected = matrix.get(job.entry, FIRST.name).get("seconds", _GUESSED_SECONDS)
        result = run_job(job, data_dir, expected, moments)
        matrix.put(job, result)
        said = result.get("problem") or f"{result['weights_digest'][:12]} in {result['seconds']:.0f} s"
        print(f"{job.entry:24} {job.environment.name:34} {said}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, pending))


def main(arguments: list[str] | None = None) -> int:
    """Run the matrix and print it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", nargs="+", choices=zoo.list_recipes(), default=zoo.names(), metavar="NAME")
    parser.add_argument("--data-dir", help="folder with the official data files")
    parser.add_argument("--python", action="append", default=[], help="another interpreter that has dettriton")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which runs are killed")
    parser.add_argument("--out", type=Path, help="JSON file; by default one in bench/results/ named after the machine")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parsed = parser.parse_args(arguments)
    try:
        others = [cpu_matrix.of_interpreter(path) for path in parsed.python]
        environments = [*filter(cpu_matrix.runs_here, ENVIRONMENTS), *OF_COMPILED_LOOPS, *others, RESUMED]
        content = header("environments")
        matrix = Matrix(parsed.out or result_path("environments", content["environment"]), content)
        known = {e.name: cpu_matrix.facts(e) for e in environments}
        jobs = [Job(entry, e, known[e.name]) for e in environments for entry in parsed.entries]
        run_matrix(matrix, jobs, parsed.data_dir, parsed.jobs, parsed.seed)
    except (DettritonError, OSError) as error:
        print(f"dettriton: {error}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    names = [e.name for e in environments]
    columns = [list(verdicts(matrix, entry, names)) for entry in parsed.entries]
    rows = [(name, *row) for name, row in zip(names, zip(*columns, strict=True), strict=True)]
    print_table("Weights digests", ("environment", *parsed.entries), rows, markdown=parsed.markdown)
    return _exit_code([cell for column in columns for cell in column])


def _exit_code(cells: list[str]) -> int:
    if any(cell.startswith("DIFFERENT") for cell in cells):
        return DIFFERENT
    return ONE_DIGEST if all(cell.startswith("same") for cell in cells) else CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
