"""The `emloom` command: verbs in the order of the pipeline.

Every command is a thin shell over a task; heavy imports happen inside the command that needs them, so that
`emloom --help` stays instant. Exit codes: 0 done, 1 a bug or a failed check, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from emloom import __version__
from emloom.cli import (
    align,
    artifacts,
    blockwise,
    classify,
    combine,
    connectome,
    data,
    datasets,
    evaluate,
    frequency,
    graph,
    jobs,
    labelling,
    machine,
    models,
    preview,
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
from emloom.errors import InputError

app = typer.Typer(
    name="emloom",
    help="From a raw volume-electron-microscopy stack to neurons and their synapses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"emloom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


data.register(app)
volumes.register(app)
combine.register(app)
qc.register(app)
align.register(app)
repair.register(app)
jobs.register(app)
labelling.register(app)
blockwise.register(app)
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
artifacts.register(app)
skeleton.register(app)
datasets.register(app)
models.register(app)
machine.register(app)


def main() -> None:
    """Run the command line; bad input becomes one paragraph on stderr and exit status 2."""
    try:
        app()
    except InputError as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted: what was finished is kept; the same command goes on from there", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
