"""Signing releases with the OpenSSF model-signing library, by key or by certificate, offline.

Source: https://github.com/sigstore/model-transparency (package ``model-signing``); a signature is a Sigstore bundle.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dettriton.errors import InputError
from dettriton.files import atomic_write
from dettriton.zoo import _bundle, _keys, _manifest
from dettriton.zoo._bundle import NEEDS_SHARE, SIGNATURE
from dettriton.zoo._new_folder import new_folder
from dettriton.zoo._signature_file import SignatureError

if TYPE_CHECKING:
    from model_signing.hashing import Config

ZOO_SIGNATURE = "zoo.sig"

_PACKAGED = {"cards": ".md", "recipes": ".toml", "weights": ".safetensors"}


def sign(
    name: str | None,
    out: str | Path,
    private_key: str | Path,
    certificate_chain: Sequence[str | Path] = (),
    *,
    password: bytes | None = None,
) -> Path:
    """Write a signed release, or sign the whole installed zoo.

    Args:
        name: of a released model: its folder, ``OUT/NAME`` (:mod:`dettriton.zoo._bundle`), is written with its
            signature ``model.sig`` in it. None: ``OUT/zoo.sig`` is a signature of the installed zoo's manifest, recipes,
            weights and cards.
        out: a folder, made if missing.
        private_key: PEM, on an elliptic curve (P-256, P-384 or P-521).
        certificate_chain: PEM files, the signer's certificate first, then those up to the root; or none, to be verified
            with the public key.
        password: that protects the private key; None if none does.

    Returns:
        The signature file.

    Raises:
        InputError: there is no such model, ``OUT/NAME`` is there already, a key, password or certificate does not
            serve, or model-signing is not installed.
        DamagedReleaseError: a released file is not the one of the manifest.
    """
    out, key, chain = Path(out), Path(private_key), [Path(path) for path in certificate_chain]
    if name is not None:
        _manifest.entry(name)
        with new_folder(out / name) as folder:
            _bundle.write_folder(name, folder)
            (folder / SIGNATURE).write_bytes(sign_folder(folder, key, chain, password))
        return out / name / SIGNATURE
    with tempfile.TemporaryDirectory(prefix="dettriton-sign-") as scratch:
        for released in _manifest.names():
            whole = Path(scratch, released)
            whole.mkdir()
            _bundle.write_folder(released, whole)
        content = sign_folder(staged_zoo(Path(scratch)), key, chain, password)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / ZOO_SIGNATURE, content)
    return out / ZOO_SIGNATURE


def sign_folder(
    folder: Path, private_key: Path, certificate_chain: Sequence[Path] = (), password: bytes | None = None
) -> bytes:
    """The signature of all files in a folder.

    Raises:
        InputError: a key, password or certificate does not serve, or model-signing is not installed.
        DamagedReleaseError: there is more than files in the folder.
    """
    require_library()
    from cryptography.hazmat.primitives.serialization import Encoding
    from model_signing import signing

    key = _keys.read_private_key(private_key, password)
    config = signing.Config().set_hashing_config(hashing())
    _bundle.list_files(folder)
    with (
        tempfile.TemporaryDirectory(prefix="dettriton-sign-") as scratch,
        nullcontext(private_key) if password is None else _keys.opened_key(key) as key_file,
    ):
        if certificate_chain:
            signer, *others = _keys.read_certificates(certificate_chain)
            _keys.require_signing_certificate(signer, key)
            files = Path(scratch, "signer.pem"), Path(scratch, "chain.pem")
            # the library does not take an empty chain
            for path, certificates in zip(files, ([signer], others or [signer]), strict=True):
                path.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
            config.use_certificate_signer(
                private_key=key_file, signing_certificate=files[0], certificate_chain=[files[1]]
            )
        else:
            config.use_elliptic_key_signer(private_key=key_file)
        config.sign(folder, Path(scratch, SIGNATURE))
        return Path(scratch, SIGNATURE).read_bytes()


def hashing() -> "Config":
    """How files are hashed: whole, by SHA-256, with none passed over (the library's default passes over git's)."""
    from model_signing.hashing import Config

    return Config().use_file_serialization().set_ignored_paths(paths=(), ignore_git_paths=False)


def staged_zoo(scratch: Path) -> Path:
    """A copy of what the installed zoo has besides code and the states of trainings."""
    stage = scratch / "zoo"
    stage.mkdir()
    shutil.copyfile(_manifest.manifest_path(), stage / _manifest.manifest_path().name)
    for place, suffix in _PACKAGED.items():
        source = _manifest.ROOT / place
        for path in sorted(source.iterdir()) if source.is_dir() else ():
            if path.is_dir() and path.suffix == ".segments":
                continue
            if path.is_symlink() or not path.is_file() or path.suffix != suffix:
                raise SignatureError(f"{path} does not belong in the zoo; remove it, or reinstall dettriton")
            (stage / place).mkdir(exist_ok=True)
            shutil.copyfile(path, stage / place / path.name)
    return stage


def require_library() -> None:
    """Raise InputError if the signing library is not installed."""
    try:
        import model_signing  # noqa: F401
        import OpenSSL  # noqa: F401 the library needs it and does not ask for it
    except ImportError as error:
        raise InputError(NEEDS_SHARE.format("model-signing")) from error
