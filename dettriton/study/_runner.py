"""Carrying out a plan: what is not in the results file yet is trained, kept and cleared away, run by run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC, data
from dettriton.data import dataset_sha256
from dettriton.data.dataset import BINARY_CLASS
from dettriton.errors import InputError
from dettriton.files import remove_partial
from dettriton.study._directory import RUNS, open_study, remove_large_files
from dettriton.study._plan import Plan, PlannedRun
from dettriton.study._progress import Progress
from dettriton.study._results import FILE_NAME, Results, open_results
from dettriton.study._single import Task, carry_out
from dettriton.study._workers import in_workers
from dettriton.train._directory import WEIGHTS
from dettriton.train.trainer import require_subnormals


def run_study(
    plan: Plan,
    out_dir: str | Path,
    *,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    download: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    keep_weights: bool = False,
    progress: bool = True,
) -> Results:
    """Train every run of a plan that ``out_dir`` does not hold yet.

    ``out_dir`` then holds ``results.json``, whose ``runs`` are the same whatever the jobs, threads, interruptions and
    the order of finishing, and in ``runs`` each run's recipe, result and trace. A study that was stopped, or killed, at
    any moment goes on where it was; a later plan may have other arms and more seeds.

    A run in which a NaN or an infinity came up is kept as a problem, for it would come up again.

    Args:
        plan: from :func:`dettriton.study.make_plan`.
        out_dir: a new directory, or that of a study of the same recipe and data.
        device, data_dir, download: as for :func:`dettriton.train.train`.
        jobs: trainings at a time; with 1 it is in this process, with more each is a process of its own.
        threads: of each training; by default torch's own number for one job, else this machine's cores shared out.
        keep_weights: leave each run's ``weights.safetensors`` in its directory.
        progress: show progress on the standard error stream.

    Raises:
        InputError: plan, data, device and directory do not fit together; the message says which.
        IntegrityError, EngineError: as for :func:`dettriton.train.train`.
        KeyboardInterrupt: Ctrl-C; the trainings have stopped with a checkpoint.
    """
    if jobs < 1 or (threads is not None and threads < 1):
        raise InputError(f"jobs and threads count from 1, got {jobs} and {threads}")
    require_subnormals()
    threads = threads or (torch.get_num_threads() if jobs == 1 else max(1, _cores() // jobs))
    data_dir = None if data_dir is None else str(data_dir)
    study = {"bitspec": BITSPEC, "recipe": plan.shared_recipe(), **_describe_data(plan, data_dir, download)}
    with open_study(out_dir) as (folder, lock):
        remove_partial(folder / FILE_NAME)
        results = open_results(folder, study)
        runs = [*plan.runs()]
        pending = [run for run in runs if run.key not in results.runs]
        for run in set(runs).difference(pending):
            # a kill may have come between keeping a result and clearing its run away
            remove_large_files(folder / RUNS / run.folder, (WEIGHTS,))
        tasks = [
            (run, Task(plan.recipe_of(run).to_dict(), str(folder / RUNS / run.folder), device, data_dir, threads))
            for run in pending
        ]
        outcomes = _in_this_process(tasks) if jobs == 1 else in_workers(tasks, jobs, lock)
        keep = (WEIGHTS,) if keep_weights else ()
        with closing(outcomes), Progress(progress, len(runs) - len(pending), len(runs)) as shown:
            for run, outcome in outcomes:
                results.add(run.key, outcome["run"], outcome["circumstances"])
                remove_large_files(folder / RUNS / run.folder, keep)
                shown.ended(run.key, outcome["run"], outcome["circumstances"]["seconds"])
    return results


def _describe_data(plan: Plan, data_dir: str | None, download: bool) -> dict[str, Any]:
    """What a study says of its data; also fetches it once, before there are several trainings."""
    name = plan.recipe.data.name
    splits = data.load(name, data_dir, download)
    task, number = splits["test"].task, splits["test"].num_classes
    try:
        classes = list(data.describe(name, data_dir).classes)
    except InputError:  # data that has no description has numbers for names
        classes = [str(k) for k in range(number)]
    # a binary task has one figure, that of class 1
    scored = classes[-1:] if task == BINARY_CLASS else classes
    return {"dataset_sha256": dataset_sha256(splits), "task": task, "classes": scored}


def _in_this_process(tasks: Sequence[tuple[PlannedRun, Task]]) -> Iterator[tuple[PlannedRun, dict[str, Any]]]:
    before = torch.get_num_threads()
    try:
        for run, task in tasks:
            torch.set_num_threads(task.threads)
            yield run, carry_out(task, progress=False)
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
