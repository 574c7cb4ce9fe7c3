"""Verifying signatures of releases with the OpenSSF model-signing library; :mod:`dettriton.zoo._sign` makes them."""

import contextlib
import hashlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dettriton.digest import file_sha256
from dettriton.errors import InputError
from dettriton.zoo import _bundle, _keys, _manifest
from dettriton.zoo._bundle import SIGNATURE, DamagedReleaseError
from dettriton.zoo._sign import hashing, require_library, staged_zoo
from dettriton.zoo._signature_file import SignatureError, SignatureFile, read_signature

_MISMATCH = "Signature mismatch"


@dataclass(frozen=True)
class Signed:
    """A signature that was verified.

    Attributes:
        signer: by whom, in words.
        files: what it covers: SHA-256 by path.
    """

    signer: str
    files: dict[str, str]


def verify_signature(
    what: str | Path | None = None,
    *,
    public_key: str | Path | None = None,
    certificates: Sequence[str | Path] = (),
    signature: str | Path | None = None,
) -> Signed:
    """Verify that files are those that were signed, no more and no fewer, and who signed them.

    Args:
        what: a folder, the name of a released model (as installed), or None for the whole installed zoo.
        public_key: PEM of the signer's key.
        certificates: PEM files with the certificates to trust instead; whoever has a certificate for signatures from
            one of these can have signed.
        signature: the file; by default ``model.sig`` in the folder.

    Raises:
        SignatureError: the files or the signature are not what they should be.
        InputError: it cannot be told: a file is missing or is no key, or model-signing is not installed.
    """
    if (public_key is None) == (not certificates):
        raise InputError("give either the public key to verify with, or the certificates to trust")
    trusted = [Path(path) for path in certificates]
    key = None if public_key is None else Path(public_key)
    if what is not None and Path(what).is_dir():
        folder = Path(what)
        return verify_folder(folder, folder / SIGNATURE if signature is None else Path(signature), key, trusted)
    if what is not None:
        _manifest.entry(str(what))
    if signature is None:
        raise InputError(f"which signature of {what or 'the installed zoo'}? Give its file (--signature)")
    with tempfile.TemporaryDirectory(prefix="dettriton-verify-") as scratch:
        folder = Path(scratch, "release")
        if what is None:
            folder = staged_zoo(Path(scratch))
        else:
            folder.mkdir()
            _bundle.write_folder(str(what), folder)
        return verify_folder(folder, Path(signature), key, trusted)


def verify_folder(folder: Path, path: Path, public_key: Path | None, trusted: Sequence[Path]) -> Signed:
    """Verify that a folder holds what ``path`` signs; for the rest see :func:`verify_signature`."""
    require_library()
    signature = read_signature(path)
    if public_key is not None:
        signer = _key_signer(public_key, signature, path)
    else:
        signer = _certificate_signer(trusted, signature, path)
    beside = {SIGNATURE}
    with contextlib.suppress(ValueError):
        beside.add(path.resolve().relative_to(folder.resolve()).as_posix())
    try:
        present = [name for name in _bundle.list_files(folder) if name not in beside]
    except DamagedReleaseError as error:
        raise SignatureError(str(error)) from None
    same = _library_agrees(folder, signature, path, public_key, trusted, sorted(beside))
    # a signature may ask the library to pass over paths; what was not signed is refused all the same
    differences = _differences(folder, present, signature)
    if differences or not same:
        raise SignatureError(f"{folder} does not hold what {path} signs: {', '.join(differences)}. Fetch it again")
    return Signed(signer, dict(signature.files))


def _differences(folder: Path, present: Sequence[str], signature: SignatureFile) -> list[str]:
    found = {name: file_sha256(folder / name) for name in present}
    told = []
    for name in sorted({*found, *signature.files}):
        if name not in signature.files:
            told.append(f"{name} was not signed")
        elif name not in found:
            told.append(f"{name} is missing")
        elif found[name] != signature.files[name]:
            told.append(f"{name} was altered")
    return told


def _key_signer(public_key: Path, signature: SignatureFile, path: Path) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = _keys.read_public_key(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = hashlib.sha256(pem).hexdigest()
    if signature.certificates:
        raise SignatureError(f"{path} was made with a certificate, not with a bare key; verify it with --certificate")
    if signature.key_sha256 != found:
        raise SignatureError(
            f"{path} was made with another key than {public_key}: its SHA-256 is {signature.key_sha256}, not {found}"
        )
    return f"the key with SHA-256 {found}"


def _certificate_signer(trusted: Sequence[Path], signature: SignatureFile, path: Path) -> str:
    from cryptography.x509 import load_der_x509_certificate

    roots = _keys.read_certificates(trusted)
    if not signature.certificates:
        raise SignatureError(f"{path} was made with a bare key, not with a certificate; verify it with --public-key")
    try:
        chain = [load_der_x509_certificate(content) for content in signature.certificates]
        problem = _keys.chain_problem(chain, roots)
    except Exception as error:  # the parser raises many kinds for bytes that are no certificate
        raise SignatureError(f"a certificate in {path} is damaged: {error}. Fetch the signature again") from None
    if problem is not None:
        raise SignatureError(f"the certificates in {path} do not lead to one that is trusted: {problem}")
    return f"{chain[0].subject.rfc4514_string()} (certificate from {chain[0].issuer.rfc4514_string()})"


def _library_agrees(
    folder: Path,
    signature: SignatureFile,
    path: Path,
    public_key: Path | None,
    trusted: Sequence[Path],
    beside: Sequence[str],
) -> bool:
    """Whether the files are those of the signature; raises if the signature is not by whom it should be."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    config = verifying.Config().set_hashing_config(hashing().set_ignored_paths(paths=beside, ignore_git_paths=False))
    if public_key is not None:
        config.use_elliptic_key_verifier(public_key=public_key)
    else:
        config.use_certificate_verifier(certificate_chain=trusted)
    with tempfile.TemporaryDirectory(prefix="dettriton-verify-") as scratch:
        copy = Path(scratch, SIGNATURE)
        copy.write_bytes(signature.content)
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the library's own
                config.verify(folder, copy)
            return True
        except InvalidSignature:
            raise SignatureError(
                f"{path} was not made with this key, or was altered since. Do not use {folder}"
            ) from None
        except OSError as error:
            raise InputError(f"cannot read {folder}: {error}. Check its permissions") from error
        except Exception as error:  # the library raises whatever its parsers do
            if str(error).startswith(_MISMATCH):
                return False
            raise SignatureError(f"{path} does not verify for {folder}: {error or type(error).__name__}") from None
