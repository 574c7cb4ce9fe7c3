"""Deep-learning training whose result is the same bits everywhere.

The numeric contract is ``dettriton/CONTRACT.md``; :data:`BITSPEC` is its version. Subpackages load on first use,
so that ``import dettriton`` stays cheap.
"""

import importlib

__version__ = "0.1.0"

BITSPEC = 1
"""Version of the numeric contract. Any change of any bit of any result raises it."""

_SUBPACKAGES = (
    *(
        "compare",
        "data",
        "digest",
        "engine",
        "errors",
        "exact",
        "init",
        "models",
        "nn",
        "ops",
        "optim",
        "study",
        "train",
    ),
    "zoo",
)


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"dettriton.{name}")
    raise AttributeError(f"module 'dettriton' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_SUBPACKAGES])
