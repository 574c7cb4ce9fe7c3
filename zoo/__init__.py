"""Released models: recipes, weights, golden vectors and the digests that a retraining must give.

Beside them lie recipes without a released hash yet (:func:`list_recipes`, :func:`recipe`), to be trained.

A name is ``architecture.dataset``. Loading never guesses: an unknown name, a missing file or a wrong digest raises.
"""

if __name__ != "dettriton.zoo":
    raise ImportError("this folder is installed as dettriton.zoo; write `import dettriton.zoo`")

from dettriton._lazy import lazy_names
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

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
