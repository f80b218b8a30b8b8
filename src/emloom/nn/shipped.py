"""Models that come with emloom: small networks, trained on data whose licences allow that.

::

    models/fib25-lean/model.safetensors    as training wrote it
                      card.md              what it was trained on, how good it is, what it is not for

Wherever a model is asked for, its name stands for its file, unless there is a file of that name.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from emloom.errors import InputError, did_you_mean

WEIGHTS, CARD = "model.safetensors", "card.md"


def shipped() -> dict[str, Path]:
    """Return the folder of every model that comes with emloom, by name."""
    home = Path(str(files("emloom"))) / "models"
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{WEIGHTS}"))}


def model_path(text: str) -> str:
    """Return the file of a model that comes with emloom, where one of that name does, or the text as it is.

    Args:
        text: path of a checkpoint, or a name.
    """
    models = shipped()
    return str(models[text] / WEIGHTS) if text in models and not Path(text).exists() else text


def card(name: str) -> str:
    """Return what has to be known of a model, as Markdown.

    Raises:
        InputError: no model of that name comes with emloom.
    """
    models = shipped()
    if name not in models:
        hint = did_you_mean(name, list(models))
        raise InputError(f"no model {name!r} comes with emloom{hint} (these do: {', '.join(models) or 'none'})")
    return (models[name] / CARD).read_text(encoding="utf-8")


ModelPath = Annotated[str, AfterValidator(model_path)]
"""A field that takes the path of a checkpoint or the name of a model that comes with emloom."""
