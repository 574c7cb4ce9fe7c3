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
    "check_folder": "_folder",
    "CheckResult": "_weights",
    "verify": "_verify",
    "VerifyResult": "_verify",
    "spot_check": "_spot",
    "SpotResult": "_spot_result",
    "release": "_release",
    "export": "_export",
    "Exported": "_export",
    "load_folder": "_bundle",
    "sign": "_sign",
    "SignatureError": "_signature_file",
    "Signed": "_verify_signature",
    "verify_signature": "_verify_signature",
    "push": "_hub",
    "Pushed": "_hub",
    "pull": "_hub",
    "Pulled": "_hub",
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
