"""A process that carries out one run of a study: ``python -m dettriton.study._worker``.

It reads its task from the first line of its standard input and leaves the outcome in the run's directory. When its
standard input ends, because the study was interrupted or is no more, it stops with a checkpoint.
"""

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

OUTCOME = "outcome.json"
STOPPED, FAILED = 130, 2


def main() -> int:
    """Carry out the task; the exit code is 0 if there is an outcome."""
    # a study started in the background may have passed on that SIGINT is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_at_the_end_of_input, daemon=True).start()
    from dettriton.errors import DettritonError
    from dettriton.files import atomic_write

    try:
        outcome, code = _carry_out(task), 0
    except KeyboardInterrupt:
        return STOPPED
    except (DettritonError, OSError) as error:
        print(error, file=sys.stderr)
        outcome, code = {"error": {"kind": type(error).__name__, "message": str(error)}}, FAILED
    folder = Path(task["folder"])
    if folder.is_dir():
        atomic_write(folder / OUTCOME, json.dumps(outcome).encode())
    return code


def _carry_out(task: dict[str, Any]) -> dict[str, Any]:
    import torch

    from dettriton.study._single import Task, carry_out

    torch.set_num_threads(task["threads"])
    return carry_out(Task(**task), progress=True)


def _stop_at_the_end_of_input() -> None:
    sys.stdin.read()
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
