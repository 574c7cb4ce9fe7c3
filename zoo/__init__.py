"""Released models: recipes, weights, golden vectors and the digests that a retraining must give.

Beside them lie recipes without a released hash yet (:func:`list_recipes`, :func:`recipe`), to be trained.

A name is ``architecture.dataset``. Loading never guesses: an unknown name, a missing file or a wrong digest raises.
"""

import importlib

if __name__ != "dettriton.zoo":
    raise ImportError("this folder is installed as dettriton.zoo; write `import dettriton.zoo`")

from dettriton.zoo._manifest import (
    DEFAULT,
    DamagedReleaseError,
    Entry,
    entry,
    find_recipe,
    list_recipes,
    names,
    recipe,
)

_HOMES = {
    "load": "_weights",
    "check": "_weights",
    "CheckResult": "_weights",
    "verify": "_verify",
    "VerifyResult": "_verify",
    "release": "_release",
}

__all__ = [
    "DEFAULT",
    "DamagedReleaseError",
    "Entry",
    "entry",
    "find_recipe",
    "list_recipes",
    "names",
    "recipe",
    *_HOMES,
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"dettriton.zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dettriton.zoo' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])
