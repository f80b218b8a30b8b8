"""emloom turns a raw volume-electron-microscopy stack into segmented neurons.

Arrays are ``[C,]ZYX``, boxes are ZYX voxels, physical lengths are nanometres, intervals are half-open, and an
affinity at ``p`` with offset ``o`` is about the pair ``(p, p + o)``. Nothing heavy is imported here.

The verbs of `emloom.api` are here, too: ``emloom.open``, ``emloom.qc``, ...; they are imported when they are first
asked for (PEP 562; ``__init__.pyi`` tells type checkers). ``emloom.run`` and ``emloom.view`` are packages *and*
verbs: importing from them works as from any package, calling them calls the verb.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

__version__ = "0.1.0"

_VERBS = (
    "open", "save", "check", "qc", "align", "repair", "train", "predict", "segment", "synapses", "connectome",
    "evaluate", "view", "run", "Box", "InputError", "OnDevice", "Result", "Where", "WhereAnew",
)  # fmt: skip


class _PackageAndVerb(_ModuleType):
    """A package that can be called: it stands for the verb of its name."""

    def __call__(self, *args: object, **options: object) -> object:
        return self._verb(*args, **options)

    @property
    def _verb(self):
        return getattr(_import_module("emloom.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self):
        from inspect import signature

        return signature(self._verb)


for _name in ("run", "view"):
    _import_module(f"emloom.{_name}").__class__ = _PackageAndVerb
del _name


def __getattr__(name: str) -> object:
    if name not in _VERBS:
        raise AttributeError(f"module 'emloom' has no attribute {name!r}")
    return getattr(_import_module("emloom.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_VERBS})
