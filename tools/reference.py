"""The reference of every Spec, written from the Specs themselves whenever the documentation is built.

mkdocs runs this file as a hook (`hooks:` in mkdocs.yml): `on_files` adds pages under ``reference/`` that exist
nowhere on disk. So a field, its type, its default and the words about it are said once, in the code, and cannot
grow old here.

::

    KINDS     ─► a page per kind of job          ┐  a Spec that only one page needs stands on it,
    COMMANDS  ─► a page per command with a Spec  │  and one that several need on the page of its
    AREAS     ─► pages of what they share        ┘  area: data, networks, losses, ...

A unit is read off the name, as everywhere in emloom: `_nm`, `_vox`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from emloom.spec import Spec  # noqa: E402
from emloom.tasks import (  # noqa: E402
    alignspec,
    annotating,
    anyjob,
    artifactbaselinesspec,
    artifactclean,
    artifactmap,
    classify,
    classspec,
    combinespec,
    confidencespec,
    connectome,
    connectomeexport,
    convert,
    crfspec,
    crop,
    disagreeing,
    export,
    exportneuronsspec,
    frequencyspec,
    labelslices,
    mining,
    movepoints,
    movestack,
    patchspec,
    pipelinespec,
    plan,
    predict,
    proofreading,
    publish,
    pyramid,
    qcspec,
    refine,
    refinesearch,
    repairspec,
    scorespec,
    segmentspec,
    selecting,
    skeletonconvert,
    skeletonmeasure,
    skeletonplot,
    stats,
    submission,
    suggestslices,
    synapsedecoders,
    synapsespec,
)
from emloom.testing import damagespec, phantom  # noqa: E402

SpecType = type[Spec]

KINDS: Mapping[str, SpecType] = {"pipeline": pipelinespec.PipelineJob, **anyjob.KINDS}
"""Whatever a job file may say as its `kind`."""

COMMANDS: Mapping[str, tuple[SpecType, ...]] = {
    "align": (alignspec.AlignJob, movestack.MoveJob, movepoints.MovePointsJob),
    "artifacts": (
        artifactmap.MapJob,
        artifactclean.CleanJob,
        artifactbaselinesspec.ArtifactBaselinesJob,
        patchspec.PatchSpec,
        annotating.AnnotateSpec,
        selecting.SelectSpec,
        mining.MineSpec,
        disagreeing.DisagreeSpec,
        disagreeing.AdoptSpec,
    ),
    "classify": (classify.ClassifyJob, classify.RulesSpec),
    "combine-masks": (combinespec.CombineJob,),
    "confidence": (confidencespec.ConfidenceJob,),
    "connectome": (connectome.ConnectomeJob, connectomeexport.ExportGraphSpec),
    "crop": (crop.CropSpec,),
    "evaluate": (scorespec.EvaluateSpec, classspec.ClassSpec, synapsespec.SynapseSpec),
    "export": (export.ExportSpec,),
    "export-neurons": (
        exportneuronsspec.ExportNeuronsJob,
        exportneuronsspec.MeshSpec,
        exportneuronsspec.CentreLineSpec,
    ),
    "frequency": (frequencyspec.FrequencySpec,),
    "import": (convert.ConvertSpec,),
    "label-slices": (labelslices.LabelSlicesSpec,),
    "phantom": (phantom.PhantomSpec, damagespec.DamageSpec),
    "plan": (plan.PlanSpec,),
    "predict": (predict.PredictJob,),
    "proofread": (proofreading.ProofreadJob,),
    "publish": (publish.PublishJob,),
    "pyramid": (pyramid.PyramidSpec,),
    "qc": (qcspec.QcSpec,),
    "refine": (refine.RefineJob, refinesearch.SearchJob, crfspec.CrfSpec),
    "repair": (repairspec.RepairJob,),
    "segment": (segmentspec.SegmentJob,),
    "skeleton": (skeletonconvert.ConvertTracingSpec, skeletonmeasure.MeasureSpec, skeletonplot.PlotSpec),
    "stats": (stats.StatsSpec,),
    "submit": (submission.SubmitSpec,),
    "suggest-slices": (suggestslices.SuggestJob,),
    "synapses": (synapsedecoders.SynapsesJob,),
}
"""By verb: what a command makes of its options and its settings file."""

AREAS: Mapping[str, tuple[str, str]] = {
    "Data": ("data", r"tasks\.(data|sparsespec|synapsedata|tracingsource)$"),
    "Objectives": ("objectives", r"nn\.objectives\."),
    "Networks": ("networks", r"nn\.\w*(net|encoder|level_specs|variational|forestspec)\w*$"),
    "Losses": ("losses", r"nn\.(\w+_)?losses$"),
    "Augmentation": ("augmentation", r"nn\.(augment|planting)$"),
    "Training": ("training", r"nn\.(train|transfer|preprocess|strategies|plan)$"),
    "Segmentation": ("segmentation", r"tasks\.segmentspec$"),
    "Quality control, alignment, repair": ("sections", r"tasks\.(qcspec|alignspec|repairspec)$"),
    "Synapses": ("synapses", r"tasks\.synapsedecoders$"),
}
"""Title, name of the page and modules of what jobs share; the rest is on the last page, `scoring`."""

REST = ("Scoring and other parts", "scoring")


# ---- where a Spec stands ----------------------------------------------------------------------------------------


def models_in(annotation: Any) -> Iterator[SpecType]:
    """Yield the Specs that an annotation names, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def reachable(spec: SpecType) -> dict[SpecType, None]:
    """Return a Spec and all that its fields lead to, in the order in which they are met."""
    seen: dict[SpecType, None] = {}
    pending = [spec]
    while pending:
        each = pending.pop(0)
        if each not in seen:
            seen[each] = None
            pending += [m for field in each.model_fields.values() for m in models_in(field.annotation)]
    return seen


def _roots() -> dict[str, tuple[str, tuple[SpecType, ...]]]:
    pages = {f"kind-{name}": (f"kind: {name}", (spec,)) for name, spec in KINDS.items()}
    return pages | {f"command-{verb}": (f"emloom {verb}", specs) for verb, specs in COMMANDS.items()}


def _area(spec: SpecType) -> str:
    module = spec.__module__.removeprefix("emloom.")
    return next((page for page, pattern in AREAS.values() if re.match(pattern, module)), REST[1])


@cache
def places() -> dict[SpecType, str]:
    """Return for every Spec the name of the page it stands on."""
    roots = {spec: page for page, (_, specs) in _roots().items() for spec in specs}
    users: dict[SpecType, set[str]] = {}
    for page, (_, specs) in _roots().items():
        for each in (part for spec in specs for part in reachable(spec)):
            users.setdefault(each, set()).add(page)
    shared = {spec: pages.pop() if len(pages) == 1 else _area(spec) for spec, pages in users.items()}
    return shared | roots


# ---- words ------------------------------------------------------------------------------------------------------


def _link(spec: SpecType) -> str:
    page = places().get(spec)
    return f"[{spec.__name__}]({page}.md#{spec.__name__.lower()})" if page else f"`{spec.__name__}`"


def _variant(spec: SpecType) -> str:
    field = spec.model_fields.get("kind")
    given = f" (`{field.default}`)" if field is not None and get_origin(field.annotation) is Literal else ""
    return _link(spec) + given


_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "of length ≥", "max_length": "of length ≤"}


def _bounds(metadata: Any) -> str:
    found = [
        f"{sign} {getattr(each, name):,}"
        for each in metadata
        for name, sign in _BOUNDS.items()
        if hasattr(each, name)
    ]
    found += [f"a multiple of {each.multiple_of}" for each in metadata if hasattr(each, "multiple_of")]
    return f" {', '.join(found)}" if found else ""


_PLAIN = {bool: "true or false", int: "integer", float: "number", str: "text", NoneType: "null", Any: "anything"}


def words(annotation: Any) -> str:
    """Return a type in words of Markdown: `tuple[float, float, float]` are "3 numbers"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = parts
        spread = [m for each in metadata for m in getattr(each, "metadata", [each])]
        return words(inner) + _bounds(spread)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in parts)
    if origin in (Union, UnionType):
        return " or ".join(words(part) for part in parts)
    if origin is tuple:
        return _sequence(parts)
    if origin in (dict, Mapping):
        return f"mapping of {words(parts[0])} to {words(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return _variant(annotation)
    return _PLAIN.get(annotation) or f"`{getattr(annotation, '__name__', annotation)}`"


def _sequence(parts: tuple[Any, ...]) -> str:
    if len(parts) == 2 and parts[1] is Ellipsis:
        return f"list of ({words(parts[0])})"
    if len(set(map(repr, parts))) == 1:
        return f"{len(parts)} × {words(parts[0])}"
    return "list of " + ", ".join(words(part) for part in parts)


def _unit(name: str) -> str:
    return next((unit for end, unit in {"_nm": ", nm", "_vox": ", voxels"}.items() if name.endswith(end)), "")


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Spec) and value == _plain(type(value)):
        return "its defaults"
    text = yaml.safe_dump(_listed(value), default_flow_style=True, width=10_000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _plain(spec: SpecType) -> Spec | None:
    required = any(field.is_required() for field in spec.model_fields.values())
    return None if required else spec()


def _listed(value: Any) -> Any:
    if isinstance(value, Spec):  # what differs from its own defaults
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        return kind | value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple | list):
        return [_listed(each) for each in value]
    return value


def _about(name: str, field: Any) -> str:
    if field.description:
        return " ".join(str(field.description).split())
    if name == "kind":
        return "Which variant this is."
    named = list(models_in(field.annotation))
    return _first_line(named[0]) if len(named) == 1 else ""


def prose(spec: SpecType) -> str:
    """Return the docstring of a Spec without its sections of arguments and errors."""
    text = inspect.cleandoc(spec.__doc__ or "")
    text = re.split(r"\n(?:Args|Attributes|Raises|Returns|Example):\n", text)[0]
    return re.sub(r"(?<!`)``([^`\n]+)``(?!`)", r"`\1`", text).replace("::\n", ":\n").strip()


def _first_line(spec: SpecType) -> str:
    return " ".join(prose(spec).split("\n\n")[0].split())


# ---- pages ------------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def section(spec: SpecType) -> str:
    """Return the part of a page that tells everything about one Spec."""
    lines = [f"## {spec.__name__} {{#{spec.__name__.lower()}}}", "", prose(spec), ""]
    lines += ["| key | type | default | what it is |", "|---|---|---|---|"]
    fields = sorted(spec.model_fields.items(), key=lambda each: each[0] != "kind")
    for name, field in fields:
        kind = words(field.annotation) + _bounds(field.metadata) + _unit(name)
        cells = (f"`{name}`", kind, _default(field), _about(name, field))
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join([*lines, "", f"`{spec.__module__}.{spec.__name__}`", ""])


def _order(page: str) -> list[SpecType]:
    here = [spec for spec, place in places().items() if place == page]
    first = _roots().get(page, ("", ()))[1]
    return [*first, *sorted(set(here) - set(first), key=lambda spec: (spec.__module__, spec.__name__))]


def _opening(page: str) -> str:
    title, _ = _roots()[page]
    if page.startswith("kind-"):
        said = "A job file of this kind is carried out by `emloom run`, and proved beforehand by `emloom check`."
        return f"# {title}\n\n{said} How a file is written: [job files](../job-files.md).\n"
    said = f"What `{title}` makes of its options and, where it takes one, its settings file."
    return f"# {title}\n\n{said} Its options: `{title} --help`.\n"


def _index() -> str:
    rows = [f"| [`{name}`](kind-{name}.md) | {_cell(_first_line(spec))} |" for name, spec in KINDS.items()]
    verbs = [
        f"| [`emloom {verb}`](command-{verb}.md) | {_cell(_first_line(s[0]))} |" for verb, s in COMMANDS.items()
    ]
    areas = [f"* [{title}]({page}.md)" for title, page in _areas().items()]
    return "\n".join(
        [
            "# Reference",
            "",
            "Every key of every file, with its type, its default and its unit. These pages are made from the code",
            "when the documentation is built. Unknown keys are errors, and `emloom schema` prints the same as a",
            "JSON schema for editors.",
            "",
            "## Kinds of jobs",
            "",
            "| `kind` | |",
            "|---|---|",
            *rows,
            "",
            "## What jobs share",
            "",
            *areas,
            "",
            "## Commands",
            "",
            "| command | |",
            "|---|---|",
            *verbs,
            "",
        ]
    )


def _areas() -> dict[str, str]:
    pages = {title: page for title, (page, _) in AREAS.items()} | {REST[0]: REST[1]}
    return {title: page for title, page in pages.items() if page in places().values()}


def pages() -> dict[str, str]:
    """Return the Markdown of every page of the reference, by its path below docs/."""
    found = {"index": _index()}
    for page in _roots():
        found[page] = "\n".join([_opening(page), *(section(spec) for spec in _order(page))])
    for title, page in _areas().items():
        head = f"# {title}\n\nShared by several kinds of jobs or commands.\n"
        found[page] = "\n".join([head, *(section(spec) for spec in _order(page))])
    return {f"reference/{name}.md": text for name, text in found.items()}


def nav() -> list[dict[str, Any]]:
    """Return the entries of the navigation for these pages."""
    return [
        {"Overview": "reference/index.md"},
        {"Kinds of jobs": [{name: f"reference/kind-{name}.md"} for name in KINDS]},
        {"What jobs share": [{title: f"reference/{page}.md"} for title, page in _areas().items()]},
        {"Commands": [{verb: f"reference/command-{verb}.md"} for verb in COMMANDS]},
    ]


def on_config(config: Any) -> Any:
    """Put the pages into the section of the navigation that is called Reference (a hook of mkdocs)."""
    for section_of in config.nav:
        if "Reference" in section_of:
            section_of["Reference"][:0] = nav()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to what mkdocs builds (its hook)."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
