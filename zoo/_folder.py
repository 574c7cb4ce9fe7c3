"""Whether the zoo's folder is whole: the manifest's form, and nothing beside the rows' files."""

from dettriton.errors import DettritonError
from dettriton.train.recipe import load_recipe
from dettriton.zoo import _manifest
from dettriton.zoo._manifest import DamagedReleaseError, Entry
from dettriton.zoo._rows import is_name, require_canonical
from dettriton.zoo._segments import stray_files
from dettriton.zoo._weights import CheckResult

NAME = "manifest"


def check_folder() -> CheckResult:
    """Check that the manifest has its one form, and that no file lies there that belongs to no row.

    A recipe needs no row: those without a released hash lie beside the others, and have to be recipes.
    """
    try:
        _require_whole(_read())
    except DettritonError as error:
        return CheckResult(NAME, str(error))
    return CheckResult(NAME, None)


def _read() -> dict[str, Entry]:
    path = _manifest.manifest_path()
    if not path.exists():
        return {}
    rows = _manifest.read_manifest()
    require_canonical(path.read_bytes(), str(path))
    return rows


def _require_whole(rows: dict[str, Entry]) -> None:
    own = {path(name) for name in rows for path in (_manifest.weights_path, _manifest.golden_path)}
    own |= {_manifest.segments_path(name) for name, row in rows.items() if row.segments is not None}
    weights = _manifest.ROOT / "weights"
    found = sorted(weights.iterdir()) if weights.is_dir() else []
    stray = [path for path in found if path not in own]
    stray += [path for row in rows.values() for path in stray_files(row)]
    if stray:
        more = f" (and {len(stray) - 1} more)" if len(stray) > 1 else ""
        raise DamagedReleaseError(
            f"{stray[0]}{more} belongs to no row of the manifest; remove it, or reinstall dettriton"
        )
    for path in sorted((_manifest.ROOT / "recipes").iterdir()):
        if path.suffix != ".toml" or not is_name(path.name.removesuffix(".toml")):
            raise DamagedReleaseError(f"{path} is no recipe; remove it, or reinstall dettriton")
        load_recipe(path)
