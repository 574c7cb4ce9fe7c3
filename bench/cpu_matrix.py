"""The CPU environments that stock torch's results depend on, and running a command under one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dettriton.environment import cpu_features
from dettriton.errors import EngineError

_CONTROLLED = (
    "ATEN_CPU_CAPABILITY",
    "DETTRITON_NUMBA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "TRITON_INTERPRET",
)

# waiting threads that sleep: spinning ones multiply the time when two runs share the cores
_ALWAYS = {"OMP_WAIT_POLICY": "PASSIVE"}

_FACTS = "import json; from dettriton.environment import environment; print(json.dumps(environment()))"


@dataclass(frozen=True)
class Environment:
    """One way to run on this machine.

    Attributes:
        name: a row of the table.
        variables: environment variables; others that could matter are unset.
        python: the interpreter.
        kills: how often the run is killed at a random moment and resumed.
        needs: a name of ``environment()["cpu_features"]`` without which its processes would be killed.
    """

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    kills: int = 0
    needs: str = ""

    def process_variables(self) -> dict[str, str]:
        """The whole environment of its processes."""
        kept = {k: v for k, v in os.environ.items() if k not in _CONTROLLED}
        return kept | _ALWAYS | dict(self.variables)


def _threads(count: int, **variables: str) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count)) | variables


FIRST = Environment("2 threads", _threads(2))

ENVIRONMENTS: tuple[Environment, ...] = (
    FIRST,
    replace(FIRST, name="2 threads, a second run"),
    Environment("1 thread", _threads(1)),
    Environment("ATEN_CPU_CAPABILITY=default", _threads(2, ATEN_CPU_CAPABILITY="default")),
    Environment("ATEN_CPU_CAPABILITY=avx2", _threads(2, ATEN_CPU_CAPABILITY="avx2"), needs="avx2"),
    Environment("ATEN_CPU_CAPABILITY=avx512", _threads(2, ATEN_CPU_CAPABILITY="avx512"), needs="avx512f"),
    Environment("ONEDNN_MAX_CPU_ISA=SSE41", _threads(2, ONEDNN_MAX_CPU_ISA="SSE41")),
    Environment("MKL_CBWR=COMPATIBLE", _threads(2, MKL_CBWR="COMPATIBLE")),
)

OF_COMPILED_LOOPS: tuple[Environment, ...] = (
    Environment("NUMBA_CPU_NAME=generic", _threads(2, NUMBA_CPU_NAME="generic")),
    Environment("DETTRITON_NUMBA=0", _threads(2, DETTRITON_NUMBA="0")),
)
"""What only our own loops depend on, not stock torch."""

RESUMED = replace(FIRST, name="killed twice (SIGKILL), resumed", kills=2)

MORE_ENVIRONMENTS: tuple[Environment, ...] = (
    Environment("ONEDNN_MAX_CPU_ISA=AVX2", _threads(2, ONEDNN_MAX_CPU_ISA="AVX2")),
    Environment("MKL_CBWR=SSE4_2", _threads(2, MKL_CBWR="SSE4_2")),
    Environment(
        "1 thread, all limited",
        _threads(1, ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41", MKL_CBWR="COMPATIBLE"),
    ),
)


def runs_here(environment: Environment) -> bool:
    """Whether this CPU has what an environment asks for."""
    return not environment.needs or environment.needs in cpu_features()


def facts(environment: Environment) -> dict[str, Any]:
    """What :func:`dettriton.environment.environment` says in a process of this environment.

    Raises:
        EngineError: its interpreter cannot import dettriton.
    """
    try:
        return json.loads(output(environment, ["-c", _FACTS]))
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join((getattr(error, "stderr", None) or str(error)).split())[-300:]
        python = environment.python
        raise EngineError(f"{python} cannot run dettriton: {said}. Install it: {python} -m pip install .") from None


def of_interpreter(python: str) -> Environment:
    """The environment of another interpreter, named after its torch.

    Raises:
        EngineError: it cannot import dettriton.
    """
    found = facts(replace(FIRST, python=python))
    return replace(FIRST, name=f"torch {found['packages']['torch']}, Python {found['python']}", python=python)


def output(environment: Environment, arguments: Sequence[str]) -> str:
    """The standard output of ``python ARGUMENTS`` under an environment.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    command = [environment.python, *arguments]
    done = subprocess.run(command, env=environment.process_variables(), capture_output=True, text=True, check=True)
    return done.stdout
