"""A trained model by what a user calls it: a released name, or the directory of a finished training."""

from pathlib import Path

from dettriton.errors import InputError
from dettriton.files import load_safetensors
from dettriton.train.trained import Trained, load_run
from dettriton.zoo import _manifest
from dettriton.zoo._weights import load


def find_trained(name: str | Path) -> Trained:
    """A released model, or that of a run; the name wins.

    Args:
        name: one of :func:`dettriton.zoo.names`, or the ``--out`` directory of a finished training.

    Raises:
        InputError: there is neither, or the run is not finished or of another bitspec.
        IntegrityError: its weights or recipe do not have the digest they should have.
    """
    if str(name) not in _manifest.names() and Path(name).is_dir():
        return load_run(name)
    try:
        row = _manifest.entry(str(name))
    except InputError as error:
        raise InputError(f"{error}. Nor is it a folder, the --out directory of a finished training") from None
    model = load(row.name)
    # loading has compared the whole file's digest
    _, metadata = load_safetensors(_manifest.weights_path(row.name))
    return Trained(row.name, model, _manifest.recipe(row.name), row.weights_digest, metadata)
