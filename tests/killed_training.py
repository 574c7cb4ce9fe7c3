"""Trainings that are killed (SIGKILL) at random moments and resumed, as a script: ``killed_training.py OUT KILLS SEED``.

Every training is a fork of this process, which imported torch once, has one thread, and writes to a pipe when it begins
and ends writing a file: half of the kills come at a random moment of the training, half at a random moment of a write.
Prints, as JSON, how many kills there were and whether each training ended with the bytes of one that nobody killed.
"""

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import tiny_training as tiny
import torch

from dettriton import files
from dettriton.train import _directory, _result, trainer

MOST_KILLS_OF_A_RUN = 5
_PATIENCE = 60
BEGIN, END = b"(", b")"


class Child:
    """A training in a process of its own, resumed from what is in its directory."""

    def __init__(self, out: Path):
        self._pipe, told = os.pipe()
        self.log = b""
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_train(out, told))
        os.close(told)

    def wait_for_write(self, count: int) -> None:
        """Until so many writes have begun, or the process is over."""
        while self.log.count(BEGIN) < count and self._listen(_PATIENCE):
            pass

    def end(self) -> int:
        """The exit status once it is over; negative for a signal."""
        while self._listen(_PATIENCE):
            pass
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def writing(self) -> bool:
        """Whether it was in the middle of a write when it ended."""
        return self.log.count(BEGIN) > self.log.count(END)

    def _listen(self, seconds: float) -> bool:
        if not select.select([self._pipe], [], [], seconds)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"the training said nothing for {seconds} s")
        heard = os.read(self._pipe, 1)
        self.log += heard
        return bool(heard)


def _train(out: Path, told: int) -> int:
    def marked(write: Callable) -> Callable:
        def run(path: os.PathLike, data: bytes) -> None:
            os.write(told, BEGIN)
            write(path, data)
            os.write(told, END)

        return run

    atomic_write = marked(files.atomic_write)
    for module in (files, _directory, _result):
        module.atomic_write = atomic_write
    try:
        trainer.train(tiny.recipe(), out, progress=False, resume=True, checkpoint_steps=1, tensor_interval=2)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(out: Path, kills: int, seed: int, forget_optimizer: bool = False) -> dict:
    """Kill so many times; the outcome as JSON data."""
    torch.set_num_threads(1)
    tiny.install(setattr)
    started = time.monotonic()
    whole = Child(out / "whole")
    if whole.end() != 0:
        raise RuntimeError("the training that nobody kills failed")
    length, writes = time.monotonic() - started, whole.log.count(BEGIN)
    expected = tiny.files(out / "whole")
    if forget_optimizer:
        trainer.restore_optimizer = lambda *_: None
    moments = random.Random(seed)
    done, during_writes, runs, different = 0, 0, 0, []
    while done < kills:
        folder, left = out / f"run{runs}", moments.randint(1, MOST_KILLS_OF_A_RUN)
        runs += 1
        while left and done < kills:
            left -= 1
            child = Child(folder)
            if moments.random() < 0.5:
                time.sleep(moments.uniform(0, length))
            else:
                child.wait_for_write(moments.randint(1, 4 if moments.random() < 0.7 else writes))
                time.sleep(moments.choice((0, moments.uniform(0, 0.2 * length / writes))))
            os.kill(child.pid, signal.SIGKILL)
            status = child.end()
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise RuntimeError(f"a resumed training ended with {status}")
            done += 1
            during_writes += child.writing()
        if Child(folder).end() != 0:
            raise RuntimeError("a resumed training failed")
        leftovers = [path.name for path in folder.iterdir() if path.name.endswith(".partial")]
        if tiny.files(folder) != expected or leftovers:
            different.append(folder.name)
    return {
        "kills": done,
        "during_writes": during_writes,
        "runs": runs,
        "different": different,
        "weights_digest": json.loads(expected["result.json"])["weights_digest"],
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "--forget-optimizer" in sys.argv)))
