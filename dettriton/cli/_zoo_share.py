"""``dettriton zoo sign``, ``verify-signature``, ``push`` and ``pull``: releases that others publish or fetch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dettriton.cli import _options, fail

REFUSED = 1

_file = click.Path(dir_okay=False)
_folder = click.Path(file_okay=False)
_certificate = click.option(
    "--certificate", "certificates", multiple=True, type=_file, help="PEM of certificates to trust (repeatable)."
)
_public_key = click.option("--public-key", type=_file, help="PEM of the signer's public key.")
_endpoint = click.option("--endpoint", metavar="URL", help="Another server than huggingface.co.")
_token_env = click.option(
    "--token-env",
    metavar="VARIABLE",
    help="Environment variable with the access token. Default: HF_TOKEN or a login, which go to no --endpoint.",
)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--private-key", required=True, type=_file, help="PEM of the key, on P-256, P-384 or P-521.")
@click.option(
    "--certificate-chain",
    multiple=True,
    type=_file,
    help="PEM of the signer's certificate and of those above it (repeatable); without it, a bare key signs.",
)
@click.option(
    "--password-file",
    type=_file,
    help="Its first line is the password of the key; without it, a terminal asks if the key is protected.",
)
@click.option("--out", required=True, type=_folder, help="Where to write; made if missing.")
@click.pass_context
def sign(
    ctx: click.Context,
    names: tuple[str, ...],
    private_key: str,
    certificate_chain: tuple[str, ...],
    password_file: str | None,
    out: str,
) -> None:
    """Sign releases with the OpenSSF model-signing library, offline.

    For each of NAMES: the release as a folder to publish, OUT/NAME, with its signature model.sig in it. Without NAMES:
    OUT/zoo.sig, a signature of the manifest, recipes, weights and cards of this installation.

    OpenSSL makes a key and the public key that others verify with:

    \b
      openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.pem
      openssl pkey -in release.pem -pubout -out release.pub
    """
    from dettriton import zoo

    for name in names:
        zoo.entry(name)
    with _refusing(ctx):
        password = _password(Path(private_key), password_file)
        for name in names or (None,):
            click.echo(f"wrote {zoo.sign(name, out, private_key, certificate_chain, password=password)}")


def _password(private_key: Path, password_file: str | None) -> bytes | None:
    """The password of a protected key; None where there is none, or nobody can be asked."""
    from dettriton.zoo import _keys, _sign

    _sign.require_library()
    if password_file is not None:
        return _keys.read_password(Path(password_file))
    if not _keys.is_protected(private_key) or not _is_terminal():
        return None
    try:
        text = click.prompt(f"Password of {private_key}", hide_input=True, err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
    # undecodable bytes of the terminal come as surrogates, and go back to what they were
    return text.encode(errors="surrogateescape")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


@click.command("verify-signature")
@click.argument("what", metavar="[DIR|NAME]", required=False)
@_public_key
@_certificate
@click.option("--signature", type=_file, help="The signature; by default DIR/model.sig.")
@_options.as_json
@click.pass_context
def verify_signature(
    ctx: click.Context,
    what: str | None,
    public_key: str | None,
    certificates: tuple[str, ...],
    signature: str | None,
    as_json: bool,
) -> None:
    """Verify who signed the folder DIR, the installed release NAME or (without either) the installed zoo.

    Every file must be the one that was signed, and there must be no other. With --certificate, whoever has a valid
    certificate for signatures from one of these can have signed: look at the name that is printed. Exit code 0 if it
    verifies, 1 if not, 2 when that cannot be told.
    """
    from dettriton import zoo

    with _refusing(ctx, as_json):
        signed = zoo.verify_signature(what, public_key=public_key, certificates=certificates, signature=signature)
    if as_json:
        _options.print_json({"verified": True, "signer": signed.signer, "files": signed.files})
        return
    click.echo(f"{click.style('VERIFIED', fg='green')} {what or 'the installed zoo'}, {len(signed.files)} files")
    click.echo(f"signed by {signed.signer}")


@click.command()
@click.argument("name")
@click.option("--repo", required=True, metavar="USER/NAME", help="The model repository; made if missing.")
@click.option("--signature", type=_file, help="Its model.sig, which `dettriton zoo sign` wrote.")
@click.option("--private", is_flag=True, help="If the repository is made, hide it from others.")
@_endpoint
@_token_env
@_options.as_json
@click.pass_context
def push(
    ctx: click.Context,
    name: str,
    repo: str,
    signature: str | None,
    private: bool,
    endpoint: str | None,
    token_env: str | None,
    as_json: bool,
) -> None:
    """Publish the release NAME on the Hugging Face Hub, its model card as README.md, in one commit."""
    from dettriton import zoo

    with _refusing(ctx, as_json):
        pushed = zoo.push(name, repo, signature=signature, private=private, endpoint=endpoint, token_env=token_env)
    if as_json:
        _options.print_json({"name": pushed.entry.name, "repo": repo, "commit": pushed.commit, "url": pushed.url})
        return
    click.echo(f"{pushed.entry.name} is published, weights {pushed.entry.weights_digest}\n{pushed.url}")


@click.command()
@click.argument("repo", metavar="USER/NAME")
@click.option("--out", required=True, type=_folder, help="A new or empty folder.")
@click.option("--revision", help="Branch, tag or commit; the newest by default.")
@_public_key
@_certificate
@_endpoint
@_token_env
@_options.as_json
@click.pass_context
def pull(
    ctx: click.Context,
    repo: str,
    out: str,
    revision: str | None,
    public_key: str | None,
    certificates: tuple[str, ...],
    endpoint: str | None,
    token_env: str | None,
    as_json: bool,
) -> None:
    """Fetch a release from the Hugging Face Hub and check every digest before it appears in OUT.

    A name that is released in this installation must have its digests. With --public-key or --certificate the signature
    is verified too. Exit code 1 if something is not what it should be; then OUT is not made. What a killed process left
    beside OUT is removed, and named in one line.
    """
    from dettriton import zoo

    with _refusing(ctx, as_json):
        pulled = zoo.pull(
            repo,
            out,
            revision=revision,
            endpoint=endpoint,
            token_env=token_env,
            public_key=public_key,
            certificates=certificates,
        )
    if as_json:
        content = {"name": pulled.entry.name, "commit": pulled.commit, "weights_digest": pulled.entry.weights_digest}
        facts = {"released_here": pulled.released_here, "signer": pulled.signer, "signed": pulled.signed}
        _options.print_json(content | facts | {"folder": str(pulled.folder), "left": list(pulled.left)})
        return
    _print_pulled(pulled)


def _print_pulled(pulled: Any) -> None:
    click.echo(f"{pulled.entry.name} of commit {pulled.commit} is in {pulled.folder}")
    click.echo(f"weights {pulled.entry.weights_digest}")
    if pulled.released_here:
        click.echo("digests: those that this installation has released")
    else:
        click.echo(
            "digests: those of the row that came with it. This installation has no such release: the files belong "
            "together, which does not show who made them"
        )
    if pulled.signer is not None:
        click.echo(f"signed by {pulled.signer}")
    elif pulled.signed:
        click.echo("signature: there is one that was not verified (--public-key or --certificate)")
    else:
        click.echo("signature: none; only the card, README.md, has no digest of its own")
    if pulled.left:
        click.echo(f"not fetched: {', '.join(pulled.left)}")


@contextmanager
def _refusing(ctx: click.Context, as_json: bool = False) -> Iterator[None]:
    from dettriton.errors import IntegrityError

    try:
        yield
    except IntegrityError as error:
        if as_json:
            _options.print_json({"verified": False, "problem": str(error)})
        fail(ctx, str(error), REFUSED)
