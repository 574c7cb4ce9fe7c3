"""The command line, ``dettriton``. Each subcommand is a file; what is slow to import is imported when it runs.

Exit codes: 0 done (``verify``: a match, ``diff``: the same), 1 bits that differ from released ones or between the two
sides of a ``diff``, 2 it cannot run and says what to do, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

import importlib
import os

import click

from dettriton import BITSPEC, __version__
from dettriton.errors import DettritonError

CANNOT_RUN = 2
INTERRUPTED = 130
TERMINATED = 143

_COMMANDS = ("verify", "train", "diff", "evaluate", "export", "study", "bench", "zoo", "doctor", "aot")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return importlib.import_module(f"dettriton.cli.{name}").command if name in _COMMANDS else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (DettritonError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            fail(ctx, str(error), CANNOT_RUN)
        except KeyboardInterrupt as stop:
            fail(ctx, "interrupted", stopped(stop))
        return None


def fail(ctx: click.Context, message: str, code: int) -> None:
    """Print one paragraph on the standard error stream and exit with ``code``."""
    click.echo(f"dettriton: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def stopped(error: KeyboardInterrupt) -> int:
    """The exit code of a stop that a signal asked for: 128 and the signal's number, as shells have it."""
    from dettriton.train._interrupt import Terminated

    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message=f"dettriton %(version)s (bitspec {BITSPEC})")
def main() -> None:
    """Deep-learning training whose result is the same bits everywhere."""
    # Small tensors mean many short parallel regions: threads that spin between them starve each other on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
