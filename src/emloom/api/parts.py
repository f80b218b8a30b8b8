"""What the verbs of `emloom.api` share: where they run, what they take, what they give back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

from emloom.errors import InputError, did_you_mean
from emloom.io.open import inspect, open_volume
from emloom.io.tables import Table, read_table
from emloom.io.volume import Volume

if TYPE_CHECKING:
    from emloom.nn.train import Progress as TrainingProgress
    from emloom.run.executor import Executor

Source = str | Path | Volume
"""Something to read: a path or address, or a volume that was opened from one."""
Target = str | Path
"""Where to write."""
OnBlock = Callable[[str, int, int], None]
"""Is told (stage, parts done, parts in all); `print` will do."""


class Where(TypedDict, total=False):
    """Where a verb computes and who watches; never what it computes.

    Attributes:
        workers: processes on this machine; default 1, this process itself.
        scheduler: a dask scheduler instead: its address, or its file.
        block_minutes: ends a worker that takes longer for one block; default 10, 0 for as long as it likes.
        progress: is told (stage, parts done, parts in all).
        settings: everything else a verb takes, by the names of its Spec: a mapping, or a YAML file.
    """

    workers: int
    scheduler: str
    block_minutes: float
    progress: OnBlock
    settings: Mapping[str, Any] | Target


class WhereAnew(Where, total=False):
    """`Where`, of a verb that goes on after a crash.

    Attributes:
        overwrite: replace the result of another job in the place of the output.
    """

    overwrite: bool


class OnDevice(WhereAnew, total=False):
    """`WhereAnew`, of a verb that runs a network.

    Attributes:
        device: `auto` (default), `cpu` or `cuda`.
    """

    device: str


@dataclass(frozen=True)
class Result:
    """What a verb left in a folder.

    Attributes:
        folder: everything, with `report.html`.
        summary: the figures, as plain values.
        volume_name: of the volume in the folder that matters most; None where there is none.
        table_name: the same of tables.
    """

    folder: Path
    summary: Mapping[str, Any]
    volume_name: str | None = None
    table_name: str | None = None

    @classmethod
    def of(cls, folder: Target, summary: str, volume: str | None = None, table: str | None = None) -> Result:
        """Return the result of a finished folder; `summary` is the name of its JSON file."""
        path = Path(folder)
        return cls(path, json.loads((path / summary).read_text(encoding="utf-8")), volume, table)

    @property
    def report(self) -> Path:
        """The page to look at first."""
        return self.folder / "report.html"

    @cached_property
    def volume(self) -> Volume:
        """The volume that matters most, opened; raises `InputError` where there is none."""
        if self.volume_name is None:
            raise InputError(f"{self.folder} holds no volume of its own: look at .table, .summary and .report")
        return open_volume(self.folder / self.volume_name)

    @cached_property
    def table(self) -> Table:
        """The table that matters most, read as a whole; its `columns` are what `pandas.DataFrame` takes.

        Raises:
            InputError: there is none.
        """
        if self.table_name is None:
            raise InputError(f"{self.folder} holds no table: look at .summary and .report")
        return read_table(self.folder / self.table_name)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        flat = {name: value for name, value in self.summary.items() if isinstance(value, str | int | float)}
        rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(str(v))}</td></tr>" for n, v in flat.items())
        return f"<p><code>{escape(str(self.folder))}</code></p><table>{rows}</table>"


def path_of(source: Source) -> str:
    """Return the path of something to read.

    Raises:
        InputError: it is a volume in memory, which workers and later runs could not open.
    """
    if not isinstance(source, Volume):
        return str(source)
    path = source.info.source
    if "://" not in path and not Path(path.partition("#")[0]).exists() and path == "array":
        raise InputError("the volume is in memory only: write it with emloom.save(volume, 'name.zarr') first")
    return path


def maybe_path(source: Source | None) -> str | None:
    """Return the path of something to read; None stays None."""
    return None if source is None else path_of(source)


def voxel_size_of(source: Source | None) -> dict[str, Any]:
    """Return the field of a Spec that states a voxel size: that of an opened volume, where its file does not.

    Nothing else is said, so that a volume and its path are the same job.
    """
    if not isinstance(source, Volume):
        return {}
    stated = [hit.voxel_size_nm for hit in inspect(path_of(source))]
    return {} if len(stated) == 1 and stated[0] is not None else {"voxel_size_nm": source.info.grid.voxel_size_nm}


def words_of(given: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Spec: what was given (None: not), over the settings.

    Raises:
        InputError: the settings cannot be read, or hold no mapping.
    """
    settings = how.get("settings") or {}
    if not isinstance(settings, Mapping):
        settings = _read(settings)
    said = {name: value for name, value in given.items() if value is not None}
    nested = {n for n, v in said.items() if isinstance(v, Mapping) and isinstance(settings.get(n), Mapping)}
    return {**settings, **said, **{name: {**settings[name], **said[name]} for name in nested}}


@contextmanager
def executor_for(how: Mapping[str, Any], kind: type[Any]) -> Iterator[Executor]:
    """Yield the executor that `Where` asks for.

    Args:
        how: keyword arguments of a verb.
        kind: `Where` or what follows from it; says which arguments there are.

    Raises:
        TypeError: an argument is unknown, as for any Python function.
        InputError: workers and scheduler exclude each other, or the scheduler does not answer.
    """
    from emloom.run.cluster import executor_of

    require_known(how, kind)
    minutes = how.get("block_minutes", 10.0)
    with executor_of(how.get("workers", 1), how.get("scheduler"), minutes * 60 or None) as executor:
        yield executor


def require_known(how: Mapping[str, Any], kind: type[Any]) -> None:
    """Raise `TypeError` for keyword arguments that a verb does not take."""
    valid = get_type_hints(kind)
    for name in how:
        if name not in valid:
            hint = did_you_mean(name, valid)
            raise TypeError(f"unexpected keyword argument {name!r}{hint} (where it runs: {', '.join(valid)})")


def stages_told(how: Mapping[str, Any]) -> OnBlock:
    """Return who is told about progress; nobody, where nobody asked."""
    told: OnBlock | None = how.get("progress")
    return told or _silent


class ProgressListener:
    """Hands what a job says to one function of (stage, parts done, parts in all)."""

    def __init__(self, tell: OnBlock) -> None:
        self._tell = tell

    def stage(self, name: str, skipped: bool) -> None:
        """Say that a stage is done already."""
        if skipped:
            self._tell(name, 1, 1)

    def step(self, progress: TrainingProgress) -> None:
        """Say that a training step is done."""
        self._tell("train", progress.step, progress.steps)

    def advance(self, name: str, done: int, total: int) -> None:
        """Say that a part of a stage is done."""
        self._tell(name, done, total)


def _silent(*_: object) -> None:
    pass


def _read(path: Target) -> dict[str, Any]:
    import yaml

    try:
        words = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(f"{path} cannot be read: {problem}") from None
    if not isinstance(words, dict):
        raise InputError(f"{path} holds no settings: write `name: value` lines")
    return words
