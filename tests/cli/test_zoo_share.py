"""Exit codes, messages and output of ``dettriton zoo sign``, ``verify-signature``, ``push`` and ``pull``."""

import json
import os
import sys
from contextlib import suppress

import pytest
from click.testing import CliRunner
from hub_stand_in import TOKEN, hub
from made_keys import Authority, write_pair

pytest.importorskip("huggingface_hub")
pytest.importorskip("model_signing")
pytest.importorskip("OpenSSL")

from huggingface_hub import constants

from dettriton import zoo
from dettriton.cli import _zoo_share, main
from dettriton.digest import file_sha256

NAME, REPO = "med_cnn.digits", "someone/digits"

# huggingface_hub 2 uploads in a way that its HTTP library advises against
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def run(*arguments):
    return CliRunner().invoke(main, ["zoo", *(str(a) for a in arguments)])


def require_one_paragraph(result, code, told):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("dettriton: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


@pytest.fixture
def key(tmp_path):
    return write_pair(tmp_path, "key")


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / "home"))
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(constants, name, True)
    monkeypatch.setenv("STAND_IN_TOKEN", TOKEN)
    with hub() as running:
        yield running


def test_verify_signature_of_a_folder(key, tmp_path):
    result = run("sign", NAME, "--private-key", key, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / NAME
    assert result.stdout == f"wrote {folder / 'model.sig'}\n"
    verify = ("verify-signature", folder, "--public-key", key.with_suffix(".pub"))
    result = run(*verify)
    assert result.exit_code == 0, result.output
    signer = f"the key with SHA-256 {file_sha256(key.with_suffix('.pub'))}"
    assert result.stdout == f"VERIFIED {folder}, 5 files\nsigned by {signer}\n"
    found = json.loads(run(*verify, "--json").stdout)
    assert (found["verified"], found["signer"]) == (True, signer)
    assert found["files"]["model.safetensors"] == zoo.entry(NAME).file_sha256

    result = run("verify-signature", NAME, *verify[2:], "--signature", folder / "model.sig")
    assert result.stdout.startswith(f"VERIFIED {NAME}, 5 files\n")
    (folder / "more").write_text("x")
    require_one_paragraph(run(*verify), 1, "more was not signed")
    result = run(*verify, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verified"] is False


def test_verify_signature_by_a_certificate(tmp_path):
    root = Authority("A Hospital")
    key, signer = Authority("Release Desk", root, authority=False).write(tmp_path, "signer")
    _, trusted = root.write(tmp_path, "root")
    result = run("sign", NAME, "--private-key", key, "--certificate-chain", signer, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    result = run("verify-signature", tmp_path / NAME, "--certificate", trusted)
    assert result.exit_code == 0, result.output
    assert "signed by CN=Release Desk (certificate from CN=A Hospital)\n" in result.stdout
    _, foreign = Authority("A Hospital").write(tmp_path, "foreign")
    require_one_paragraph(run("verify-signature", tmp_path / NAME, "--certificate", foreign), 1, "do not lead to one")


PASSWORD = "the Würfel is cast"


@pytest.fixture
def locked(tmp_path):
    return write_pair(tmp_path, "locked", password=PASSWORD.encode())


def signed_by(locked, folder):
    return run("verify-signature", folder, "--public-key", locked.with_suffix(".pub")).exit_code == 0


def test_verify_a_password_file_opens_a_protected_key(locked, tmp_path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    sign = ("sign", NAME, "--private-key", locked, "--out", tmp_path / "out", "--password-file")
    result = run(*sign, tmp_path / "password")
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    assert signed_by(locked, tmp_path / "out" / NAME)
    (tmp_path / "password").write_text("guessed")
    sign = ("sign", NAME, "--private-key", locked, "--out", tmp_path / "other", "--password-file")
    result = run(*sign, tmp_path / "password")
    require_one_paragraph(result, 2, "the password does not open the key")
    assert "guessed" not in result.output
    require_one_paragraph(run(*sign, tmp_path / "none"), 2, "cannot read")


def test_verify_a_terminal_asks_for_the_password_once(locked, tmp_path, monkeypatch):
    monkeypatch.setattr(_zoo_share, "_is_terminal", lambda: True)
    sign = ["zoo", "sign", NAME, "ecg_resnet18_tiny.rhythm_sim", "--private-key", str(locked), "--out"]
    result = CliRunner().invoke(main, [*sign, str(tmp_path / "out")], input=f"{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Password of ") == 1 and PASSWORD not in result.output
    assert result.stdout.count("wrote ") == 2
    assert signed_by(locked, tmp_path / "out" / NAME)
    result = CliRunner().invoke(main, [*sign, str(tmp_path / "other")], input="guessed\n")
    assert result.exit_code == 2
    assert "the password does not open the key" in result.stderr and "guessed" not in result.output
    result = CliRunner().invoke(main, [*sign, str(tmp_path / "other")], input="")
    assert (result.exit_code, result.stdout) == (130, "")


def test_verify_nobody_is_asked_for_the_password_of_an_open_key(key, tmp_path, monkeypatch):
    monkeypatch.setattr(_zoo_share, "_is_terminal", lambda: True)
    result = run("sign", NAME, "--private-key", key, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Password" not in result.output


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_verify_the_password_is_not_echoed_by_a_real_terminal(locked, tmp_path):
    import pty

    command = [sys.executable, "-m", "dettriton", "zoo", "sign", NAME, "--private-key", str(locked), "--out"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*command, str(tmp_path / "out")])
    shown = b""
    with suppress(OSError):  # the terminal ends with its process
        while part := os.read(terminal, 1024):
            if b"Password" not in shown and b"Password" in shown + part:
                os.write(terminal, f"{PASSWORD}\n".encode())
            shown += part
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    assert b"wrote " in shown and PASSWORD.encode() not in shown
    assert signed_by(locked, tmp_path / "out" / NAME)


def test_verify_signature_of_the_installed_zoo(key, tmp_path):
    result = run("sign", "--private-key", key, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    public, signature = key.with_suffix(".pub"), tmp_path / "zoo.sig"
    assert result.stdout == f"wrote {signature}\n"
    result = run("verify-signature", "--public-key", public, "--signature", signature)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("VERIFIED the installed zoo, ")
    result = run("verify-signature", NAME, "--public-key", public, "--signature", signature)
    require_one_paragraph(result, 1, "manifest.json was altered")


def test_verify_what_cannot_be_told_exits_2(key, tmp_path):
    public, out = key.with_suffix(".pub"), tmp_path / "out"
    locked = write_pair(tmp_path, "locked", password=b"secret")
    refused = {
        ("sign", "nobody", "--private-key", key, "--out", out): "'nobody'",
        ("sign", NAME, "--private-key", tmp_path / "none", "--out", out): "cannot read",
        ("sign", NAME, "--private-key", public, "--out", out): "not a private key",
        ("sign", NAME, "--private-key", locked, "--out", out): "password",
        ("verify-signature", NAME): "either the public key",
        ("verify-signature", NAME, "--public-key", public, "--certificate", public): "either the public key",
        ("verify-signature", NAME, "--public-key", public): "--signature",
        ("verify-signature", "--public-key", public): "--signature",
        ("verify-signature", "nobody", "--public-key", public): "'nobody'",
        ("verify-signature", tmp_path, "--public-key", public): "cannot read the signature",
        ("push", NAME, "--repo", REPO, "--token-env", "NO_SUCH_TOKEN"): "NO_SUCH_TOKEN is not set",
        ("pull", REPO, "--out", tmp_path): "is there already",
    }
    for arguments, told in refused.items():
        require_one_paragraph(run(*arguments), 2, told)
    assert not list(tmp_path.glob("out/*"))


def test_verify_push_and_pull(server, key, tmp_path):
    run("sign", NAME, "--private-key", key, "--out", tmp_path)
    there = ("--endpoint", server.url)
    signature = tmp_path / NAME / "model.sig"
    result = run(
        "push", NAME, "--repo", REPO, *there, "--token-env", "STAND_IN_TOKEN", "--signature", signature, "--json"
    )
    assert result.exit_code == 0, result.output
    commit = server.repos[REPO][-1][0]
    assert json.loads(result.stdout) == {
        "name": NAME,
        "repo": REPO,
        "commit": commit,
        "url": f"{server.url}/{REPO}/commit/{commit}",
    }
    public = ("--public-key", key.with_suffix(".pub"))
    result = run("pull", REPO, "--out", tmp_path / "pulled", *there, *public)
    assert result.exit_code == 0, result.output
    assert f"{NAME} of commit {commit} is in {tmp_path / 'pulled'}\n" in result.stdout
    assert "digests: those that this installation has released\n" in result.stdout
    assert "signed by the key" in result.stdout
    assert "not fetched: .gitattributes\n" in result.stdout
    assert run("verify-signature", tmp_path / "pulled", *public).exit_code == 0
    found = json.loads(run("pull", REPO, "--out", tmp_path / "again", *there, "--json").stdout)
    assert (found["released_here"], found["signed"], found["signer"]) == (True, True, None)

    server.repos[REPO][-1][1]["golden.safetensors"] += b"\0"
    result = run("pull", REPO, "--out", tmp_path / "tampered", *there)
    assert result.exit_code == 1
    assert "golden.safetensors of" in result.stderr
    assert not (tmp_path / "tampered").exists()
    result = run("pull", "someone/nothing", "--out", tmp_path / "none", *there)
    require_one_paragraph(result, 2, "answered 404")
