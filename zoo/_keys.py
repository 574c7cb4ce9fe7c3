"""Keys and certificates in PEM files, looked at before the signing library gets them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dettriton.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.x509 import Certificate

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""Curves of the signing library, by the names of SEC 2 and of NIST."""

_MAX_BYTES = 1 << 20


def read_private_key(path: Path, password: bytes | None = None) -> "EllipticCurvePrivateKey":
    """A private key.

    Args:
        path: of its file.
        password: that protects it; None if none does.

    Raises:
        InputError: the file cannot be read, is no such key, or is not protected by this password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    protected = _is_protected(content)
    if protected and not password:
        raise InputError(
            f"the key in {path} is protected by a password: name a file whose first line it is (--password-file FILE), "
            "or sign in a terminal, which asks for it"
        )
    # what the library says is not repeated: it might name what it was given
    try:
        key = load_pem_private_key(content, password)
    except UnsupportedAlgorithm:
        raise InputError(f"the key in {path} is of a kind, or protected in a way, that is not supported here") from None
    except TypeError:
        raise InputError(f"the key in {path} is not protected by a password; leave out --password-file") from None
    except ValueError:
        if protected:
            raise InputError(f"the password does not open the key in {path}; check both") from None
        raise InputError(f"{path} is not a private key in PEM form; `dettriton zoo sign --help` makes one") from None
    return _on_curve(key, EllipticCurvePrivateKey, path)


def is_protected(path: Path) -> bool:
    """Whether a private key is protected by a password.

    Raises:
        InputError: the file cannot be read.
    """
    return _is_protected(_read(path))


def read_password(path: Path) -> bytes:
    """The first line of a file, without its end.

    Raises:
        InputError: the file cannot be read, or its first line is empty.
    """
    password = _read(path).partition(b"\n")[0].removesuffix(b"\r")
    if not password:
        raise InputError(f"the first line of {path} has to be the password, and is empty")
    return password


@contextmanager
def opened_key(key: "EllipticCurvePrivateKey") -> Iterator[Path]:
    """A path where the signing library can read a protected key, once, without its password.

    It is a pipe of this process, so that the key is on no disk: the library's signer by certificate takes no password.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        yield Path(f"/dev/fd/{reading}")
    finally:
        os.close(reading)


def read_public_key(path: Path) -> "EllipticCurvePublicKey":
    """The public half of a key.

    Raises:
        InputError: the file cannot be read, or is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is not a public key in PEM form; `dettriton zoo sign --help` makes one") from None
    return _on_curve(key, EllipticCurvePublicKey, path)


def read_certificates(paths: Sequence[Path]) -> "list[Certificate]":
    """All certificates of some PEM files, in order.

    Raises:
        InputError: a file cannot be read, or holds no certificates.
    """
    from cryptography.x509 import load_pem_x509_certificates

    found = []
    for path in paths:
        content = _read(path)
        try:
            found += load_pem_x509_certificates(content)
        except ValueError:
            raise InputError(f"{path} holds no X.509 certificates in PEM form") from None
    return found


def require_signing_certificate(certificate: "Certificate", key: "EllipticCurvePrivateKey") -> None:
    """Check that a signature by this key and certificate could be verified now.

    Raises:
        InputError: the certificate is of another key, is not valid now, or is not for signatures.
    """
    name = certificate.subject.rfc4514_string()
    if certificate.public_key() != key.public_key():
        raise InputError(f"the first certificate ({name}) is not of this private key; the signer's comes first")
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise InputError(
            f"the certificate {name} is valid from {certificate.not_valid_before_utc} to "
            f"{certificate.not_valid_after_utc}, and not now; sign with another"
        )
    if not is_for_signatures(certificate):
        raise InputError(f"the certificate {name} is not for signatures: it needs the key usage digitalSignature")


def is_for_signatures(certificate: "Certificate") -> bool:
    """Whether a certificate's key usage (RFC 5280) has digital signatures, or its extended usage code signing."""
    from cryptography import x509

    values = [extension.value for extension in certificate.extensions]
    coded = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING
    return any(isinstance(v, x509.KeyUsage) and v.digital_signature for v in values) or any(
        isinstance(v, x509.ExtendedKeyUsage) and coded in v for v in values
    )


def chain_problem(chain: "Sequence[Certificate]", trusted: "Sequence[Certificate]") -> str | None:
    """Why a chain, the signer's certificate first, shows nobody trusted to sign now; None if it does.

    The signing library looks at the chain as it was at the start of the signer's validity, and so takes certificates
    that have expired since.
    """
    from OpenSSL import crypto

    if not is_for_signatures(chain[0]):
        return f"{chain[0].subject.rfc4514_string()} is not for signatures"
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    signer, *between = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        crypto.X509StoreContext(store, signer, between).verify_certificate()
    except crypto.X509StoreContextError as error:
        return f"{error} ({error.certificate.to_cryptography().subject.rfc4514_string()})"
    return None


def _is_protected(content: bytes) -> bool:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        load_pem_private_key(content, None)
    except TypeError:
        return True
    except Exception:  # whatever else is wrong with it is told by those who need the key
        return False
    return False


def _on_curve(key: Any, kind: type, path: Path) -> Any:
    if not isinstance(key, kind) or key.curve.name not in CURVES:
        raise InputError(f"the key in {path} is not an elliptic curve key on one of {', '.join(CURVES.values())}")
    return key


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions") from error
