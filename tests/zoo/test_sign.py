"""Signatures: what verifies, and everything that must not."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from made_keys import Authority, write_pair

pytest.importorskip("model_signing")
pytest.importorskip("OpenSSL")

from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing import hashing, signing, verifying

from dettriton import zoo
from dettriton.cli import main
from dettriton.digest import file_sha256
from dettriton.errors import InputError
from dettriton.zoo import _bundle, _keys, _manifest, _sign
from dettriton.zoo._bundle import CARD, FILES, GOLDEN, MANIFEST, RECIPE, SIGNATURE, WEIGHTS

NAME = "med_cnn.digits"
PASSWORD = "a Würfel's secret".encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two key pairs, and a release that the first signed."""
    folder = tmp_path_factory.mktemp("made")
    write_pair(folder, "other")
    zoo.sign(NAME, folder, write_pair(folder, "key"))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made / NAME, tmp_path / "release"))


@pytest.fixture
def small_zoo(monkeypatch, tmp_path):
    """A zoo with one release."""
    root, entry = tmp_path / "zoo", zoo.entry(NAME)
    card = _manifest.ROOT / "cards" / f"{NAME}.md"
    for path in (_manifest.weights_path(NAME), _manifest.golden_path(NAME), _manifest.recipe_path(NAME), card):
        copy = root / path.relative_to(_manifest.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    monkeypatch.setattr(_manifest, "ROOT", root)
    _manifest.write_manifest({NAME: entry})
    return root


def flip(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def sign_by_library(folder, key, *certificates, ignored=()):
    config = signing.Config()
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=bool(ignored)))
    if certificates:
        config.use_certificate_signer(
            private_key=key, signing_certificate=certificates[0], certificate_chain=certificates[1:] or certificates
        )
    else:
        config.use_elliptic_key_signer(private_key=key)
    (folder / SIGNATURE).unlink(missing_ok=True)
    config.sign(folder, folder.parent / "new.sig")
    shutil.move(folder.parent / "new.sig", folder / SIGNATURE)


def test_verify_signed_folder(made, folder):
    signed = zoo.verify_signature(folder, public_key=made / "key.pub")
    assert signed.files == {name: file_sha256(folder / name) for name in FILES}
    assert signed.signer == f"the key with SHA-256 {file_sha256(made / 'key.pub')}"
    assert file_sha256(folder / WEIGHTS) == zoo.entry(NAME).file_sha256
    assert "](recipe.toml)" in (folder / CARD).read_text()


def test_verify_the_library_alone_agrees(made, folder):
    config = verifying.Config().use_elliptic_key_verifier(public_key=made / "key.pub")
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE]))
    config.verify(folder, folder / SIGNATURE)


def test_verify_signature_elsewhere_and_of_the_installed_release(made, folder, small_zoo):
    moved = folder.parent / "moved.sig"
    shutil.move(folder / SIGNATURE, moved)
    for what in (folder, NAME):
        assert set(zoo.verify_signature(what, public_key=made / "key.pub", signature=moved).files) == set(FILES)
    flip(small_zoo / f"weights/{NAME}.safetensors")
    with pytest.raises(zoo.DamagedReleaseError, match=f"model.safetensors of the installed {NAME}"):
        zoo.verify_signature(NAME, public_key=made / "key.pub", signature=moved)


def test_verify_loaded_folder_is_the_released_model(folder):
    from dettriton.digest import digest

    model = zoo.load_folder(folder)
    assert digest(model) == zoo.entry(NAME).weights_digest
    assert not model.training
    flip(folder / WEIGHTS)
    with pytest.raises(zoo.DamagedReleaseError, match="not the released one"):
        zoo.load_folder(folder)


DAMAGES = {
    "weight": (lambda f: flip(f / WEIGHTS), "model.safetensors was altered"),
    "golden": (lambda f: flip(f / GOLDEN), "golden.safetensors was altered"),
    "manifest": (lambda f: flip(f / MANIFEST), "manifest.json was altered"),
    "card": (lambda f: flip(f / CARD), "README.md was altered"),
    "missing": (lambda f: (f / RECIPE).unlink(), "recipe.toml is missing"),
    "extra": (lambda f: (f / "more.bin").write_bytes(b""), "more.bin"),
    "hidden": (lambda f: (f / ".gitattributes").write_bytes(b""), ".gitattributes"),
    "below .git": (lambda f: (f / ".git").mkdir() or (f / ".git/hook").write_bytes(b""), ".git/hook"),
    "link": (lambda f: (f / "more").symlink_to(f / CARD), "symbolic link"),
    "link to a folder": (lambda f: (f / "more").symlink_to(f.parent), "symbolic link"),
    "linked weights": (lambda f: (f / WEIGHTS).rename(f.parent / "w") and (f / WEIGHTS).symlink_to("../w"), "link"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_damaged_folder_is_refused(made, folder, damage):
    break_it, told = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(zoo.SignatureError) as caught:
        zoo.verify_signature(folder, public_key=made / "key.pub")
    assert told in str(caught.value)


def test_verify_signature_that_passes_over_paths_hides_nothing(made, folder):
    sign_by_library(folder, made / "key.pem", ignored=["spare"])
    zoo.verify_signature(folder, public_key=made / "key.pub")
    (folder / "spare").write_text("x")
    (folder / ".github").mkdir()
    (folder / ".github/x").write_text("x")
    with pytest.raises(zoo.SignatureError, match=r"\.github/x was not signed, spare was not signed"):
        zoo.verify_signature(folder, public_key=made / "key.pub")


def test_verify_another_key_is_refused(made, folder):
    with pytest.raises(zoo.SignatureError, match="made with another key"):
        zoo.verify_signature(folder, public_key=made / "other.pub")
    # its hint is not signed: whoever replaces it gains nothing
    path = folder / SIGNATURE
    content = json.loads(path.read_bytes())
    content["verificationMaterial"]["publicKey"]["hint"] = file_sha256(made / "other.pub")
    path.write_text(json.dumps(content))
    with pytest.raises(zoo.SignatureError, match="not made with this key, or was altered"):
        zoo.verify_signature(folder, public_key=made / "other.pub")


def test_verify_foreign_signature_files_are_refused(made, folder):
    path = folder / SIGNATURE
    whole = path.read_bytes()
    other = json.loads(whole)
    payload = other["dsseEnvelope"]["payload"]
    other["dsseEnvelope"]["payload"] = payload[:40] + payload[44:]
    twice = json.loads(whole)
    twice["dsseEnvelope"]["signatures"] *= 2
    broken = [whole[:n] for n in (0, 1, len(whole) // 2, len(whole) - 1)]
    broken += [b"[]", b"{}", b"\xff", b"7", b"[" * 100_000, whole.replace(b"+json", b"+text", 1)]
    broken += [json.dumps(content).encode() for content in (other, twice)]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(zoo.SignatureError):
            zoo.verify_signature(folder, public_key=made / "key.pub")
    path.unlink()
    with pytest.raises(InputError, match="cannot read the signature"):
        zoo.verify_signature(folder, public_key=made / "key.pub")


@pytest.mark.parametrize("stride", [67, pytest.param(1, marks=pytest.mark.heavy)])
def test_verify_altered_bytes_of_a_signature_never_pass_for_another(made, folder, stride):
    path = folder / SIGNATURE
    whole, public = path.read_bytes(), made / "key.pub"
    refused, before = 0, zoo.verify_signature(folder, public_key=public)
    for position in range(0, len(whole), stride):
        for bit in (1, 32):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            try:
                assert zoo.verify_signature(folder, public_key=public) == before
            except zoo.SignatureError:
                refused += 1
    # a few bytes mean nothing: the names of parts that are not looked at
    assert refused > 0.95 * 2 * len(range(0, len(whole), stride))


def test_verify_what_a_signature_says_twice_is_not_read_in_two_ways(made, folder):
    path = folder / SIGNATURE
    content = json.loads(path.read_bytes())
    (folder / "more.bin").write_bytes(b"")
    sign_by_library(folder, made / "other.pem")
    forged = json.loads(path.read_bytes())
    for first, second in ((content, forged), (forged, content)):
        path.write_text(json.dumps(first | {"dsse_envelope": second["dsseEnvelope"]}))
        with pytest.raises(zoo.SignatureError):
            zoo.verify_signature(folder, public_key=made / "key.pub")


def test_verify_keys_that_do_not_serve(made, folder, tmp_path):
    write_pair(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_pair(tmp_path, "koblitz", ec.generate_private_key(ec.SECP256K1()))
    write_pair(tmp_path, "locked", password=b"secret")
    (tmp_path / "text.pem").write_text("no key")
    private = {"rsa": "elliptic", "koblitz": "P-256", "locked": "password", "text": "not a private", "none": "No such"}
    for name, told in private.items():
        with pytest.raises(InputError, match=told):
            zoo.sign(NAME, tmp_path / "out", tmp_path / f"{name}.pem")
    assert not (tmp_path / "out" / NAME).exists()
    assert not list(tmp_path.glob("out/*"))
    public = {"rsa.pub": "elliptic", "koblitz.pub": "P-256", "text.pem": "not a public", "rsa.pem": "not a public"}
    for name, told in public.items():
        with pytest.raises(InputError, match=told):
            zoo.verify_signature(folder, public_key=tmp_path / name)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["pkcs8", "openssl"])
def test_verify_a_protected_key_signs_with_its_password(made, folder, tmp_path, form):
    key = ec.generate_private_key(ec.SECP384R1())
    locked = write_pair(tmp_path, "locked", key, PASSWORD, form)
    (folder / SIGNATURE).unlink()
    (folder / SIGNATURE).write_bytes(_sign.sign_folder(folder, locked, password=PASSWORD))
    signed = zoo.verify_signature(folder, public_key=locked.with_suffix(".pub"))
    assert signed.signer == f"the key with SHA-256 {file_sha256(locked.with_suffix('.pub'))}"
    with pytest.raises(zoo.SignatureError, match="another key"):
        zoo.verify_signature(folder, public_key=made / "key.pub")


def test_verify_a_protected_key_signs_by_certificate(tmp_path):
    root = Authority("root")
    key, signer = Authority("The Signer", root, authority=False).write(tmp_path, "signer", PASSWORD)
    _, trusted = root.write(tmp_path, "root")
    zoo.sign(NAME, tmp_path / "out", key, [signer], password=PASSWORD)
    signed = zoo.verify_signature(tmp_path / "out" / NAME, certificates=[trusted])
    assert signed.signer == "CN=The Signer (certificate from CN=root)"


def test_verify_a_protected_key_is_on_no_disk_without_its_password(folder, tmp_path, monkeypatch):
    """Nothing that is written while it signs, nor what is told of a wrong password, holds the key or the password."""
    key = ec.generate_private_key(ec.SECP256R1())
    locked = write_pair(tmp_path, "locked", key, PASSWORD)
    written, whole = [], Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: written.append(content) or whole(path, content))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = []
    whole_sign = signing.Config.sign

    def sign(config, *arguments):
        kept.extend(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        return whole_sign(config, *arguments)

    monkeypatch.setattr(signing.Config, "sign", sign)
    (folder / SIGNATURE).unlink()
    before = set(os.listdir("/dev/fd"))
    _sign.sign_folder(folder, locked, password=PASSWORD)
    assert set(os.listdir("/dev/fd")) <= before, "the pipe is closed"
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    body = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).splitlines()[1]
    assert len(kept) > len(FILES)
    assert not [found for found in (*kept, *written) if secret in found or body in found or PASSWORD in found]


@pytest.mark.parametrize("wrong", [b"guessed", PASSWORD + b"\n", PASSWORD[:-1], b"\xff\0" * 2000])
def test_verify_wrong_passwords_are_told_and_not_repeated(tmp_path, wrong):
    locked = write_pair(tmp_path, "locked", password=PASSWORD)
    with pytest.raises(InputError, match="the password does not open the key in ") as raised:
        zoo.sign(NAME, tmp_path / "out", locked, password=wrong)
    assert wrong.decode(errors="replace") not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_verify_passwords_that_protect_nothing(made, tmp_path):
    with pytest.raises(InputError, match="is not protected by a password; leave out"):
        zoo.sign(NAME, tmp_path, made / "key.pem", password=b"x")
    for missing in (None, b""):
        with pytest.raises(InputError, match="--password-file"):
            zoo.sign(NAME, tmp_path, write_pair(tmp_path, "locked", password=PASSWORD), password=missing)
    with pytest.raises(InputError, match="not a private key"):
        zoo.sign(NAME, tmp_path, made / "key.pub", password=b"x")


@pytest.mark.parametrize("content", [b"se cret", b"se cret\n", b"se cret\r\n", b"se cret\nmore\n"])
def test_verify_password_files_hold_it_in_their_first_line(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert _keys.read_password(tmp_path / "file") == b"se cret"


@pytest.mark.parametrize(("content", "told"), [(b"", "is empty"), (b"\nx", "is empty"), (None, "cannot read")])
def test_verify_password_files_without_one_are_told(tmp_path, content, told):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=told):
        _keys.read_password(tmp_path / "file")


def test_verify_certificates(made, folder, tmp_path):
    root = Authority("root")
    between = Authority("between", root)
    key, signer = Authority("The Signer", between, authority=False).write(tmp_path, "signer")
    _, between_pem = between.write(tmp_path, "between")
    _, root_pem = root.write(tmp_path, "root")
    _, foreign_pem = Authority("root").write(tmp_path, "foreign")

    zoo.sign(NAME, tmp_path / "out", key, [signer, between_pem])
    signed = zoo.verify_signature(tmp_path / "out" / NAME, certificates=[foreign_pem, root_pem])
    assert signed.signer == "CN=The Signer (certificate from CN=between)"
    flip(tmp_path / "out" / NAME / WEIGHTS)
    with pytest.raises(zoo.SignatureError, match="was altered"):
        zoo.verify_signature(tmp_path / "out" / NAME, certificates=[root_pem])

    sign_by_library(folder, key, signer, between_pem)
    zoo.verify_signature(folder, certificates=[root_pem])
    for wrong in (foreign_pem, signer):
        with pytest.raises(zoo.SignatureError, match="do not lead to one that is trusted"):
            zoo.verify_signature(folder, certificates=[wrong])
    with pytest.raises(zoo.SignatureError, match="--certificate"):
        zoo.verify_signature(folder, public_key=made / "key.pub")
    with pytest.raises(zoo.SignatureError, match="--public-key"):
        zoo.verify_signature(made / NAME, certificates=[root_pem])
    with pytest.raises(InputError, match=r"no X\.509 certificates"):
        zoo.verify_signature(folder, certificates=[made / "key.pub"])
    with pytest.raises(InputError, match="not of this private key"):
        zoo.sign(NAME, tmp_path / "other", made / "key.pem", [signer, between_pem])


@pytest.mark.parametrize(
    ("between", "signer", "told"),
    [
        ({}, {"end": -1}, "expired"),
        ({}, {"start": 2, "end": 9}, "not yet valid"),
        ({"end": -1}, {}, "expired"),
        ({"authority": False}, {}, "CA"),
        ({}, {"signs": False}, "CN=signer is not for signatures"),
    ],
    ids=str,
)
def test_verify_unfit_certificates_are_refused(folder, tmp_path, between, signer, told):
    root = Authority("root")
    middle = Authority("between", root, **between)
    key, signer_pem = Authority("signer", middle, **({"authority": False} | signer)).write(tmp_path, "signer")
    _, middle_pem = middle.write(tmp_path, "between")
    _, root_pem = root.write(tmp_path, "root")
    sign_by_library(folder, key, signer_pem, middle_pem)
    with pytest.raises(zoo.SignatureError, match=told):
        zoo.verify_signature(folder, certificates=[root_pem])
    if signer:
        with pytest.raises(InputError, match=r"not now|not for signatures"):
            zoo.sign(NAME, tmp_path / "out", key, [signer_pem, middle_pem])


def test_verify_whole_zoo(small_zoo, made, tmp_path):
    path = zoo.sign(None, tmp_path / "out", made / "key.pem")
    signed = zoo.verify_signature(public_key=made / "key.pub", signature=path)
    golden, weights = f"weights/{NAME}.golden.safetensors", f"weights/{NAME}.safetensors"
    assert set(signed.files) == {"manifest.json", f"cards/{NAME}.md", f"recipes/{NAME}.toml", golden, weights}
    (small_zoo / "weights" / f"{NAME}.segments").mkdir()
    zoo.verify_signature(public_key=made / "key.pub", signature=path)
    (small_zoo / "weights" / "more.safetensors").write_bytes(b"")
    with pytest.raises(zoo.SignatureError, match=r"weights/more\.safetensors"):
        zoo.verify_signature(public_key=made / "key.pub", signature=path)
    (small_zoo / "weights" / "more.safetensors").rename(small_zoo / "weights" / "more.pt")
    with pytest.raises(zoo.SignatureError, match="does not belong"):
        zoo.sign(None, tmp_path / "out", made / "key.pem")
    (small_zoo / "weights" / "more.pt").unlink()
    flip(small_zoo / golden)
    with pytest.raises(zoo.SignatureError, match="was altered"):
        zoo.verify_signature(public_key=made / "key.pub", signature=path)
    with pytest.raises(zoo.DamagedReleaseError, match=r"golden\.safetensors"):
        zoo.sign(None, tmp_path / "out", made / "key.pem")


def test_verify_folder_rows_are_held_against_the_installed_ones(folder, small_zoo):
    assert _bundle.read_folder(folder).released_here
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"licence": "Apache-2.0"', '"licence": "MIT"'))
    with pytest.raises(zoo.DamagedReleaseError, match="licence differ"):
        _bundle.read_folder(folder)
    _manifest.write_manifest({})
    assert not _bundle.read_folder(folder).released_here
    whole = path.read_text()
    for digest in ("weights_digest", "golden_digest"):
        path.write_text(whole.replace(getattr(_bundle.read_folder(folder).entry, digest), "0" * 64))
        with pytest.raises(zoo.DamagedReleaseError, match="the manifest says 0000"):
            _bundle.read_folder(folder)
        path.write_text(whole)
    flip(folder / GOLDEN)
    with pytest.raises(zoo.DamagedReleaseError, match="golden"):
        _bundle.read_folder(folder)


def test_verify_signing_replaces_nothing(made):
    with pytest.raises(InputError, match="is there already"):
        zoo.sign(NAME, made, made / "key.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_verify_documented_openssl_lines_make_a_key(tmp_path):
    help_text = CliRunner().invoke(main, ["zoo", "sign", "--help"]).stdout
    lines = [line.split() for line in help_text.splitlines() if line.strip().startswith("openssl ")]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line, check=True, cwd=tmp_path, capture_output=True)
    zoo.sign(NAME, tmp_path, tmp_path / "release.pem")
    zoo.verify_signature(tmp_path / NAME, public_key=tmp_path / "release.pub")


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_verify_missing_package_is_named(made, folder, monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r'pip install "dettriton\[share\]"'):
        zoo.verify_signature(folder, public_key=made / "key.pub")
    with pytest.raises(InputError, match="model-signing"):
        zoo.sign(NAME, tmp_path / "out", made / "key.pem")
