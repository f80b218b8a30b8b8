"""Where a job comes from: a job file, or a recipe with settings.

A recipe is a function that returns a job, named ``package.module:function``; its settings are its arguments. This
module imports nothing heavy before a job is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emloom.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from emloom.tasks.anyjob import AnyJob
    from emloom.tasks.job import NeuronsJob


def load_neurons_job(reference: str, settings: Sequence[str] = ()) -> NeuronsJob:
    """Return a job that segments neurons; see `load_job`.

    Raises:
        InputError: there is no such file or recipe, it is not valid, or of another kind.
    """
    from emloom.tasks.job import NeuronsJob

    job = load_job(reference, settings)
    if not isinstance(job, NeuronsJob):
        raise InputError(
            f"{reference} is a job of kind {job.kind!r}, and this command needs one of kind 'neurons'"
        )
    return job


def load_job(reference: str, settings: Sequence[str] = ()) -> AnyJob:
    """Return the job of a YAML file, or of a recipe ``package.module:function`` with settings ``name=value``.

    Raises:
        InputError: there is no such file or recipe, or it is not valid.
    """
    import yaml

    from emloom.tasks.anyjob import load_any_job

    if reference.endswith((".yaml", ".yml")) or Path(reference).exists():
        if settings:
            raise InputError(f"{' '.join(settings)}: settings belong to recipes; edit {reference} instead")
        return load_any_job(reference)
    if ":" not in reference:
        raise InputError(
            f"{reference} is neither an existing job file nor a recipe like emloom.recipes.fib25:quick"
        )
    arguments = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} is not of the form name=value, like seed=1")
        arguments[name] = yaml.safe_load(value)
    return _recipe(reference, arguments)


def _recipe(reference: str, arguments: dict[str, object]) -> AnyJob:
    import inspect
    from importlib import import_module

    from emloom.tasks.anyjob import AnyJob

    module_name, _, function_name = reference.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as problem:
        raise InputError(f"recipe module {module_name} was not found ({problem}): check its name") from None
    functions = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name}
    public = sorted(name for name in functions if not name.startswith("_"))
    if function_name not in public:
        hint = did_you_mean(function_name, public)
        raise InputError(f"{module_name} has no recipe {function_name!r}{hint} (valid: {', '.join(public)})")
    accepted = list(inspect.signature(functions[function_name]).parameters)
    for name in arguments:
        if name not in accepted:
            hint = did_you_mean(name, accepted)
            raise InputError(f"{reference} takes no {name!r}{hint} (valid: {', '.join(accepted)})")
    job = functions[function_name](**arguments)
    if not isinstance(job, AnyJob):
        raise InputError(f"{reference} returned {type(job).__name__}, not a job: choose another recipe")
    return job
