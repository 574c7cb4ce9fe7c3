"""What ``dettriton verify --spot`` prints."""

import shlex
from typing import Any

import click


def print_outcome(result: Any, segments: str | None) -> None:
    """The outcome of :func:`dettriton.zoo.spot_check`: what was computed, what it is tied to, what it shows."""
    from dettriton.environment import one_line

    checked = len(result.checks)
    click.echo(f"Spot check of {result.name} on {result.device}: {checked} of {result.count} segments")
    click.echo(one_line(dict(result.environment), result.device))
    click.echo(f"root {result.root}\nseed {result.seed}")
    for check in result.checks:
        where = f"segment {check.index + 1}/{result.count}, steps {check.begin} to {check.end - 1}"
        click.echo(f"{where:34} {_verdict(check.matches)}")
        if check.problem is not None:
            click.echo(f"  expected {check.expected}\n  got      {check.got or 'no state'}\n  {check.problem}")
    for what, (expected, got) in result.digests.items():
        click.echo(f"{what:8} {'same' if expected == got else f'DIFFERENT: expected {expected}, got {got}'}")
    click.echo(f"weights  {_tie(result.weights_tied, 'the state after the best epoch holds the weights')}")
    click.echo(f"trace    {_tie(result.trace_tied, 'the last state has the trace of the training')}")
    click.echo(_meaning(result))
    click.echo(
        f"{_verdict(result.matches)} {result.name}, {checked} of {result.count} segments in {result.seconds:.1f} s"
    )
    where = [] if segments is None else ["--segments", segments]
    again = ["dettriton", "verify", result.name, "--spot", str(checked), "--seed", result.seed, *where]
    click.echo(f"repeat   {shlex.join(again)}")


def _meaning(result: Any) -> str:
    count, checked = result.count, len(result.checks)
    if not result.matches:
        return "What differs here was not trained as the recipe says, or was changed afterwards."
    if checked == count:
        return "Every segment was computed again: this says as much as retraining."
    missed = f"1 - {checked}/{count} = {float(result.chance_of_missing_one):.3f}"
    return (
        f"These segments were trained as the recipe says; {count - checked} were not looked at. One tampered segment is\n"
        f"missed with probability {missed}, t of them with C({count}-t, {checked}) / C({count}, {checked})."
    )


def _tie(tied: bool | None, statement: str) -> str:
    return {True: statement, False: f"NOT SO: {statement}", None: f"not checked whether {statement}"}[tied]


def _verdict(matches: bool) -> str:
    return click.style("MATCH", fg="green") if matches else click.style("MISMATCH", fg="red")
