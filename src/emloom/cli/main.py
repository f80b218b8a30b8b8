"""The `emloom` command: verbs in the order of the pipeline.

Every command is a thin shell over a task; heavy imports happen inside the command that needs them, so that
`emloom --help` stays instant. Exit codes: 0 done, 1 a failed check, failed blocks or a bug, 2 bad input, 130
interrupted (Ctrl-C), 143 ended (SIGTERM); see `emloom.cli.manners`.
"""

from __future__ import annotations

import os
import sys

import typer

from emloom import __version__
from emloom.cli import (
    align,
    artifacts,
    blockwise,
    classify,
    combine,
    confidence,
    connectome,
    data,
    datasets,
    evaluate,
    exporting,
    frequency,
    graph,
    jobs,
    labelling,
    machine,
    models,
    plan,
    preview,
    proofread,
    qc,
    refine,
    repair,
    results,
    skeleton,
    submit,
    suggest,
    synapses,
    volumes,
)
from emloom.cli.manners import KEPT, Stopping, failure, logs_as_before, quiet, speak
from emloom.errors import InputError

app = typer.Typer(
    name="emloom",
    help="From a raw volume-electron-microscopy stack to neurons and their synapses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"emloom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: int = typer.Option(0, "--verbose", "-v", count=True, help="Show logs; -vv those of libraries, too."),
    silent: bool = typer.Option(False, "--quiet", "-q", help="Show no progress."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    quiet.set(silent)
    speak(verbose)


data.register(app)
volumes.register(app)
combine.register(app)
qc.register(app)
align.register(app)
repair.register(app)
plan.register(app)
jobs.register(app)
labelling.register(app)
blockwise.register(app)
confidence.register(app)
proofread.register(app)
classify.register(app)
refine.register(app)
suggest.register(app)
preview.register(app)
evaluate.register(app)
submit.register(app)
frequency.register(app)
results.register(app)
synapses.register(app)
graph.register(app)
connectome.register(app)
exporting.register(app)
artifacts.register(app)
skeleton.register(app)
datasets.register(app)
models.register(app)
machine.register(app)


def main() -> None:
    """Run the command line: bad input is one paragraph on stderr, what nobody expected one line and a file."""
    with logs_as_before(), Stopping() as stopping:
        status = _carry_out(stopping)
    sys.exit(status)


def _carry_out(stopping: Stopping) -> int:
    """Return the exit status of the command that the words of this process ask for."""
    try:
        app(prog_name="emloom")
    except InputError as problem:
        typer.echo(f"error: {problem}", err=True)
        return problem.exit_status
    except SystemExit as end:
        if end.code != _INTERRUPTED:  # also of a command that ends well when it is stopped, such as `view`
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        pass
    except Exception as problem:
        if (status := _failed(problem)) is None:
            raise
        return status
    typer.echo(f"interrupted: {KEPT}", err=True)
    return stopping.status or _INTERRUPTED


def _failed(problem: Exception) -> int | None:
    """Tell of a failure, and return the exit status; None where somebody wants to see the trace itself."""
    from emloom.cli.endings import ended

    if (status := ended(problem)) is not None:
        return status
    if os.environ.get("EMLOOM_DEBUG"):
        return None
    typer.echo(failure(problem, ["emloom", *sys.argv[1:]]), err=True)
    return 1


if __name__ == "__main__":
    main()
