"""Publishing and fetching, against a stand-in for the Hugging Face Hub on this machine."""

import sys
from contextlib import contextmanager

import pytest
from hub_stand_in import TOKEN, hub

pytest.importorskip("huggingface_hub")

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from dettriton import zoo
from dettriton.digest import digest
from dettriton.errors import InputError
from dettriton.zoo import _manifest
from dettriton.zoo._bundle import CARD, FILES, MANIFEST, RECIPE, SIGNATURE, WEIGHTS

NAME, REPO = "med_cnn.digits", "someone/digits"

# huggingface_hub 2 uploads in a way that its HTTP library advises against
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@contextmanager
def stand_in(home):
    """A running server, and a client that knows tokens of another one."""
    home.mkdir()
    (home / "token").write_text("a-login")
    with pytest.MonkeyPatch.context() as patch, hub() as running:
        for name, value in {"HF_HOME": home, "HF_HUB_CACHE": home, "HF_TOKEN_PATH": home / "token"}.items():
            patch.setattr(constants, name, str(value))
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setattr(constants, name, True)
        patch.setenv("HF_TOKEN", "a-secret")
        patch.setenv("STAND_IN_TOKEN", TOKEN)
        disable_progress_bars()
        yield running
        enable_progress_bars()
    secrets = {"Bearer a-secret", "Bearer a-login"}
    assert not secrets & {authorization for _, _, authorization in running.asked}
    assert [path.name for path in home.iterdir()] == ["token"]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The commits of a server after the release was published."""
    with stand_in(tmp_path_factory.mktemp("published") / "home") as running:
        push(running)
    return running.repos[REPO]


@pytest.fixture
def server(tmp_path):
    with stand_in(tmp_path / "home") as running:
        yield running


@pytest.fixture
def published(server, release):
    server.repos[REPO] = [(commit, dict(files)) for commit, files in release]
    return server


def push(server, repo=REPO, **options):
    return zoo.push(NAME, repo, endpoint=server.url, token_env="STAND_IN_TOKEN", **options)


def pull(server, out, repo=REPO, **options):
    return zoo.pull(repo, out, endpoint=server.url, **options)


def change(server, path, content):
    """Put other content into the newest commit; None removes a file."""
    _, files = server.repos[REPO][-1]
    if content is None:
        del files[path]
    else:
        files[path] = content(files.get(path, b""))


def flipped(content):
    return content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]


def require_nothing_left(tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_verify_round_trip_gives_the_same_bytes(server, tmp_path):
    pushed = push(server)
    pulled = pull(server, tmp_path / "out")
    assert (pulled.commit, pulled.entry) == (pushed.commit, zoo.entry(NAME)) == (pushed.commit, pushed.entry)
    assert pulled.released_here
    assert not pulled.signed
    assert pulled.left == (".gitattributes",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    served = server.repos[REPO][-1][1]
    assert all((tmp_path / "out" / name).read_bytes() == served[name] for name in FILES)
    assert served[WEIGHTS] == _manifest.weights_path(NAME).read_bytes()
    assert served[RECIPE] == _manifest.recipe_path(NAME).read_bytes()
    assert served[CARD].startswith(b'---\nlicense: "apache-2.0"\nlibrary_name: "dettriton"\n')
    assert digest(zoo.load_folder(tmp_path / "out")) == zoo.entry(NAME).weights_digest


def test_verify_older_commits_can_be_fetched(published, tmp_path):
    older, newer = published.repos[REPO][-1][0], "1" * 40
    published.repos[REPO].append((newer, published.repos[REPO][-1][1] | {WEIGHTS: b"other"}))
    assert pull(published, tmp_path / "out", revision=older).commit == older
    with pytest.raises(zoo.DamagedReleaseError):
        pull(published, tmp_path / "newer")


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        (WEIGHTS, flipped, "model.safetensors of"),
        ("golden.safetensors", flipped, "golden.safetensors of"),
        (RECIPE, lambda text: text.replace(b"epochs = 6", b"epochs = 7"), "recipe.toml of"),
        (RECIPE, lambda text: text[:-1] + b"=", "recipe.toml of"),
        (MANIFEST, lambda text: text.replace(b'"acc": 0.985', b'"acc": 0.995'), "test differ"),
        (MANIFEST, lambda text: text.replace(b"med_cnn.digits", b"med_cnn.others"), "model.safetensors"),
        (MANIFEST, lambda text: text[:-9], "is not a manifest"),
        (MANIFEST, lambda _: b'{"schema": 1, "entries": {}}', "0 rows"),
        (RECIPE, None, "it has no recipe.toml"),
        (MANIFEST, None, "it has no manifest.json"),
    ],
)
def test_verify_tampered_files_are_refused(published, tmp_path, path, content, told):
    if content is not None and b"med_cnn.others" in content(b"med_cnn.digits"):
        change(published, WEIGHTS, flipped)
    before = published.repos[REPO][-1][1].get(path)
    change(published, path, content)
    assert published.repos[REPO][-1][1].get(path) != before
    with pytest.raises(zoo.DamagedReleaseError, match=told):
        pull(published, tmp_path / "out")
    require_nothing_left(tmp_path)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//x", "./x", "..\\x"])
def test_verify_paths_out_of_the_folder_are_refused(published, tmp_path, path):
    published.listed.append(path)
    with pytest.raises(zoo.DamagedReleaseError, match="leads out of its folder"):
        pull(published, tmp_path / "out")
    require_nothing_left(tmp_path)


def test_verify_only_the_files_of_a_release_are_fetched(published, tmp_path):
    change(published, "pickle.bin", lambda _: b"x")
    change(published, "a/model.safetensors", lambda _: b"x")
    change(published, "../x", lambda _: b"x")
    published.listed.clear()
    with pytest.raises(zoo.DamagedReleaseError, match="leads out"):
        pull(published, tmp_path / "out")
    change(published, "../x", None)
    assert pull(published, tmp_path / "out").left == (".gitattributes", "a/model.safetensors", "pickle.bin")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_verify_servers_that_lie_about_the_commit_are_refused(published, tmp_path):
    published.repos[REPO][-1] = ("../../../x", published.repos[REPO][-1][1])
    with pytest.raises(zoo.DamagedReleaseError, match="not a commit"):
        pull(published, tmp_path / "out")
    require_nothing_left(tmp_path)


def test_verify_release_that_is_not_installed_is_held_against_its_own_row(published, tmp_path, monkeypatch):
    monkeypatch.setattr(_manifest, "ROOT", tmp_path / "home")
    pulled = pull(published, tmp_path / "out")
    assert not pulled.released_here
    assert digest(zoo.load_folder(pulled.folder)) == pulled.entry.weights_digest
    change(published, WEIGHTS, flipped)
    with pytest.raises(zoo.DamagedReleaseError, match="not the released one"):
        pull(published, tmp_path / "again")


@pytest.mark.parametrize(
    ("part", "status", "told"),
    [
        ("api/models", 401, "answered 401.*access token"),
        ("api/models", 403, "answered 403.*access token"),
        ("api/models", 404, "answered 404.*Check its name"),
        ("api/models", 503, "answered 503.*Try again later"),
        ("resolve", 404, "answered 404"),
        ("lfs/", 403, "403"),
    ],
)
def test_verify_what_the_server_refuses_is_told(published, tmp_path, part, status, told):
    published.refuse[part] = status
    with pytest.raises(InputError, match=told):
        pull(published, tmp_path / "out")
    require_nothing_left(tmp_path)


def test_verify_unknown_repository_or_revision(published, tmp_path):
    for options in ({"repo": "someone/nothing"}, {"revision": "v9"}):
        with pytest.raises(InputError, match="answered 404"):
            pull(published, tmp_path / "out", **options)
    with pytest.raises(InputError, match="not the name of a repository"):
        pull(published, tmp_path / "out", repo="a/b/c")


def test_verify_server_down(server, tmp_path):
    with hub() as gone:
        url = gone.url
    for act in (
        lambda: zoo.pull(REPO, tmp_path / "out", endpoint=url),
        lambda: zoo.push(NAME, REPO, endpoint=url, token_env="STAND_IN_TOKEN"),
    ):
        with pytest.raises(InputError, match="Check the network"):
            act()
    require_nothing_left(tmp_path)


def test_verify_push_refused(server, monkeypatch):
    monkeypatch.setenv("STAND_IN_TOKEN", "a-bad-token")
    with pytest.raises(InputError, match="answered 401"):
        push(server)
    monkeypatch.setenv("STAND_IN_TOKEN", TOKEN)
    server.refuse["commit/main"] = 403
    with pytest.raises(InputError, match="answered 403"):
        push(server)


def test_verify_tokens_go_where_they_are_meant_to(server, monkeypatch):
    with pytest.raises(InputError, match="--token-env"):
        zoo.push(NAME, REPO, endpoint=server.url)
    monkeypatch.delenv("STAND_IN_TOKEN")
    with pytest.raises(InputError, match="STAND_IN_TOKEN is not set"):
        push(server)
    with pytest.raises(InputError, match="without encryption"):
        zoo.push(NAME, REPO, endpoint="http://hub.example.com", token_env="HF_TOKEN")
    for endpoint in ("ftp://hub.example.com", "hub.example.com", "https://"):
        with pytest.raises(InputError, match="not the address of a server"):
            zoo.pull(REPO, "out", endpoint=endpoint)
    assert server.asked == []


def test_verify_full_folders_are_not_touched(published, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    for out in (tmp_path / "out", tmp_path / "out/mine"):
        with pytest.raises(InputError, match="is there already"):
            pull(published, out)
    (tmp_path / "out/mine").unlink()
    assert pull(published, tmp_path / "out").released_here


def test_verify_interrupted_fetching_leaves_nothing(published, tmp_path, monkeypatch):
    def interrupted(*_, local_dir, **__):
        (local_dir / WEIGHTS).write_text("a part")
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull(published, tmp_path / "out")
    require_nothing_left(tmp_path)


def test_verify_what_a_killed_fetch_left_is_removed(published, tmp_path, caplog):
    left = tmp_path / f".out.{'0' * 16}.partial"
    (left / ".cache").mkdir(parents=True)
    (left / WEIGHTS).write_text("a part")
    assert pull(published, tmp_path / "out").released_here
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
    assert [m for m in caplog.messages if m.startswith("removed what killed processes had left beside")]


def test_verify_signatures_are_published_and_verified(server, tmp_path):
    pytest.importorskip("model_signing")
    from made_keys import write_pair

    for name in ("key", "other"):
        write_pair(tmp_path, name)
    signature = zoo.sign(NAME, tmp_path / "signed", tmp_path / "key.pem")
    push(server, signature=signature)
    assert server.repos[REPO][-1][1][SIGNATURE] == signature.read_bytes()
    pulled = pull(server, tmp_path / "out", public_key=tmp_path / "key.pub")
    assert pulled.signed
    assert "the key with SHA-256" in pulled.signer
    assert pull(server, tmp_path / "unverified").signer is None
    with pytest.raises(zoo.SignatureError, match="another key"):
        pull(server, tmp_path / "wrong", public_key=tmp_path / "other.pub")
    change(server, CARD, lambda text: text + b"<!-- altered -->")
    with pytest.raises(zoo.SignatureError, match=r"README\.md was altered"):
        pull(server, tmp_path / "wrong", public_key=tmp_path / "key.pub")

    with pytest.raises(zoo.SignatureError, match="not a signature of these files"):
        zoo.push(
            "ecg_resnet18_tiny.rhythm_sim", REPO, endpoint=server.url, token_env="STAND_IN_TOKEN", signature=signature
        )
    push(server)
    assert SIGNATURE not in server.repos[REPO][-1][1]
    with pytest.raises(zoo.SignatureError, match="has no signature"):
        pull(server, tmp_path / "wrong", public_key=tmp_path / "key.pub")
    assert not (tmp_path / "wrong").exists()


def test_verify_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for act in (lambda: zoo.push(NAME, REPO), lambda: zoo.pull(REPO, "out")):
        with pytest.raises(InputError, match=r'huggingface_hub: pip install "dettriton\[share\]"'):
            act()


def test_verify_folders_that_cannot_be_written(published, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        pull(published, tmp_path / "file" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]
