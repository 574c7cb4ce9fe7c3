"""Publishing releases on the Hugging Face Hub and fetching them from there, with huggingface_hub's client.

Source: https://huggingface.co/docs/huggingface_hub
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dettriton import __version__
from dettriton.digest import file_sha256
from dettriton.errors import DettritonError, InputError
from dettriton.zoo import _bundle
from dettriton.zoo._bundle import FILES, NEEDS_SHARE, SIGNATURE, DamagedReleaseError
from dettriton.zoo._new_folder import new_folder, require_vacant
from dettriton.zoo._rows import Entry
from dettriton.zoo._signature_file import SignatureError, read_signature

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_COMMIT = re.compile("[0-9a-f]{40}")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Pushed:
    """A published release: its row, the commit on the server, and the commit's address."""

    entry: Entry
    commit: str
    url: str


@dataclass(frozen=True)
class Pulled:
    """A release that was fetched and checked.

    Attributes:
        folder: where it lies.
        entry: its row.
        commit: which was fetched.
        released_here: as in :class:`dettriton.zoo._bundle.FolderRelease`.
        signer: by whom it is signed, if that was verified.
        signed: whether a signature came with it.
        left: what else the repository holds; it was not fetched.
    """

    folder: Path
    entry: Entry
    commit: str
    released_here: bool
    signer: str | None
    signed: bool
    left: tuple[str, ...]


def push(
    name: str,
    repo: str,
    *,
    signature: str | Path | None = None,
    private: bool = False,
    endpoint: str | None = None,
    token_env: str | None = None,
) -> Pushed:
    """Publish a released model as a model repository, in one commit.

    Args:
        name: of the model.
        repo: ``USER/NAME``; made if missing.
        signature: its ``model.sig`` of :func:`dettriton.zoo.sign`. Without one, a signature that is there is removed.
        private: if the repository is made, only its owners can see it.
        endpoint: address of another server than huggingface.co.
        token_env: the environment variable with the server's access token; by default what the client finds, ``HF_TOKEN``
            or a login, which is sent to no other server.

    Raises:
        InputError: it cannot be published: the server refuses, there is no token, or huggingface_hub is not installed.
        DamagedReleaseError: a released file is not the one of the manifest.
        SignatureError: the signature is of other files.
    """
    api = _api(endpoint, token_env, writes=True)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with tempfile.TemporaryDirectory(prefix="dettriton-push-") as scratch:
        folder = Path(scratch)
        entry = _bundle.write_folder(name, folder).entry
        if signature is not None:
            _require_signature_of(folder, Path(signature))
            shutil.copyfile(signature, folder / SIGNATURE)
        with _told(api, repo):
            api.create_repo(repo, private=private or None, exist_ok=True)
            operations = [CommitOperationAdd(path, folder / path) for path in _bundle.list_files(folder)]
            if signature is None and SIGNATURE in api.list_repo_files(repo):
                operations.append(CommitOperationDelete(SIGNATURE))
            commit = api.create_commit(
                repo, operations, commit_message=f"{name}, weights digest {entry.weights_digest}"
            )
    return Pushed(entry, commit.oid, str(commit.commit_url))


def pull(
    repo: str,
    out: str | Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token_env: str | None = None,
    public_key: str | Path | None = None,
    certificates: Sequence[str | Path] = (),
) -> Pulled:
    """Fetch a published release and check it; ``out`` is there afterwards only if everything is right.

    A name that the installed zoo has must have the digests of its row there. Another one is checked against the row that
    came with it.

    Args:
        repo: ``USER/NAME``.
        out: a new or empty folder.
        revision: a branch, a tag or a commit; the newest by default.
        endpoint, token_env: as for :func:`push`.
        public_key, certificates: verify the signature too, as :func:`dettriton.zoo.verify_signature` does.

    Raises:
        InputError: it cannot be fetched, or ``out`` is not empty.
        DamagedReleaseError: what the server has is not a release, or not the one of its row.
        SignatureError: it is not signed by whom it should be.
    """
    out = Path(out)
    require_vacant(out)
    api = _api(endpoint, token_env, writes=False)
    from huggingface_hub import snapshot_download

    with _told(api, repo):
        info = api.model_info(repo, revision=revision)
        listed = sorted(file.rfilename for file in info.siblings or ())
    commit = _require_release(repo, listed, info.sha)
    wanted = [*FILES, *([SIGNATURE] if SIGNATURE in listed else [])]
    with new_folder(out) as folder:
        kept = folder / ".cache"
        with _told(api, repo):
            snapshot_download(
                repo,
                revision=commit,
                local_dir=folder,
                cache_dir=kept,
                allow_patterns=wanted,
                endpoint=api.endpoint,
                token=api.token,
            )
        shutil.rmtree(kept, ignore_errors=True)
        release = _bundle.read_folder(folder)
        signer = None
        if public_key is not None or certificates:
            signer = _signer(folder, repo, SIGNATURE in wanted, public_key, certificates)
    left = tuple(name for name in listed if name not in wanted)
    return Pulled(out, release.entry, commit, release.released_here, signer, SIGNATURE in wanted, left)


def _signer(
    folder: Path, repo: str, signed: bool, public_key: str | Path | None, certificates: Sequence[str | Path]
) -> str:
    from dettriton.zoo._verify_signature import verify_signature

    if not signed:
        raise SignatureError(f"{repo} has no signature ({SIGNATURE}); ask its publisher for one")
    return verify_signature(folder, public_key=public_key, certificates=certificates).signer


def _api(endpoint: str | None, token_env: str | None, writes: bool) -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InputError(NEEDS_SHARE.format("huggingface_hub")) from error
    token: str | bool | None = None
    if token_env is not None:
        token = os.environ.get(token_env)
        if not token:
            raise InputError(f"the environment variable {token_env} is not set; put an access token there")
    if endpoint is not None:
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError(f"the endpoint {endpoint!r} is not the address of a server: https://HOST")
        if token is None and writes:
            raise InputError(f"name the variable with the access token of {endpoint}: --token-env VARIABLE")
        if token is not None and address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise InputError(f"a token is not sent to {endpoint} without encryption; use https")
        # a login is for huggingface.co only
        token = False if token is None else token
    return HfApi(endpoint=endpoint, token=token, library_name="dettriton", library_version=__version__)


def _require_signature_of(folder: Path, signature: Path) -> None:
    files = {name: file_sha256(folder / name) for name in _bundle.list_files(folder)}
    if dict(read_signature(signature).files) != files:
        raise SignatureError(
            f"{signature} is not a signature of these files; make one with this version: dettriton zoo sign NAME"
        )


def _require_release(repo: str, listed: Sequence[str], commit: str | None) -> str:
    for path in listed:
        if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise DamagedReleaseError(f"{repo} lists the path {path!r}, which leads out of its folder; do not use it")
    missing = sorted(set(FILES) - set(listed))
    if missing:
        raise DamagedReleaseError(f"{repo} does not hold a release of dettriton: it has no {', '.join(missing)}")
    if commit is None or not _COMMIT.fullmatch(commit):
        raise DamagedReleaseError(f"the server says that {repo} is at {commit!r}, which is not a commit; do not use it")
    return commit


@contextmanager
def _told(api: "HfApi", repo: str) -> Iterator[None]:
    """Turns what the client raises into our errors."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except DettritonError:
        raise
    except HFValidationError as error:
        raise InputError(f"{repo!r} is not the name of a repository, USER/NAME: {error}") from None
    except Exception as error:  # of whichever HTTP library this version of the client is built on
        for answer in (error, error.__cause__):
            if isinstance(answer, HfHubHTTPError):
                raise InputError(_answer(api, repo, answer)) from None
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(
            f"{repo} at {api.endpoint}: {reason}. Check the network and the address, and try again"
        ) from None


def _answer(api: "HfApi", repo: str, error: Exception) -> str:
    status, message = error.response.status_code, getattr(error, "server_message", None)
    said = f" ({message})" if message else ""
    if status in (401, 403):
        advice = "It may not exist, or needs an access token with the right to do this (--token-env)"
    elif status == 404:
        advice = "Check its name and the revision"
    else:
        advice = "Try again later"
    return f"{api.endpoint} answered {status} for {repo}{said}. {advice}"
