"""Jobs as values: the frozen base class of every specification.

A `Spec` validates, prints, hashes, dumps to YAML and is sent to workers. It says *what* is computed, never
*where*, so its hash is about the science. Unknown keys are errors; all problems are reported at once, each with
its path and the nearest valid name.

Round trip: ``S.from_yaml(s.to_yaml()) == s`` and equal specs have equal hashes, in any process and whatever the
order of keys. What would break that is refused: NaN and infinity (a NaN is not equal to itself), and a key that
stands twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from emloom.errors import InputError, did_you_mean


class Spec(BaseModel):
    """Frozen, validated description of a piece of work; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, defaults included: the *resolved* specification."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the resolved specification as YAML."""
        return yaml.dump(self.to_dict(), Dumper=_BlockDumper, sort_keys=False, default_flow_style=False)

    def content_hash(self) -> str:
        """Return the first 16 hex digits of the sha256 of the canonical JSON form.

        The class is not part of it: two kinds of job with the same fields and values have the same hash.
        """
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, data: Any, source: str = "job") -> Self:
        """Validate plain data.

        Raises:
            InputError: names every problem at once, each with its path in `source` and the way out.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as problem:
            raise InputError(_explain(problem, cls, source)) from None

    @classmethod
    def from_yaml(cls, text: str, source: str = "job") -> Self:
        """Validate YAML text; raises `InputError` for a syntax error or an invalid value."""
        try:
            data = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader: builds plain data only
        except RecursionError:
            raise InputError(f"{source} is nested too deeply: no job needs more than a few levels") from None
        # PyYAML meets dates that do not exist, and tags such as !!int on words, with errors of Python itself.
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as problem:
            raise InputError(f"{source} is not valid YAML: {problem or type(problem).__name__}") from None
        if not isinstance(data, dict):
            raise InputError(f"{source} holds {type(data).__name__}, not a mapping of keys: see `emloom schema`")
        return cls.from_dict(data, source)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file; raises `InputError` where it is unreadable or invalid."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise InputError(f"cannot read the job file {path}: {problem}") from None
        return cls.from_yaml(text, str(path))

    def dump(self, path: str | Path) -> None:
        """Write the resolved specification as YAML; a reader sees the whole file or none of it."""
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        part.write_text(self.to_yaml(), encoding="utf-8")
        part.replace(target)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _BlockDumper(yaml.SafeDumper):
    """Keeps short lists of scalars on one line, so that a shape reads as `[64, 64, 64]`."""


def _flow_scalars(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_BlockDumper.add_representer(list, _flow_scalars)


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 4, 100, 100
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 20


def _explain(problem: ValidationError, model: type[BaseModel], source: str) -> str:
    errors = problem.errors(include_url=False)
    lines = [_explain_one(error, model) for error in errors if not _is_consequence(error, errors)]
    head = f"{source} has {len(lines)} problem{'s' if len(lines) > 1 else ''}:"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _is_consequence(error: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether a sequence is called too short only because its items are wrong: pydantic leaves those out."""
    depth = len(error["loc"])
    inside = (len(other["loc"]) > depth and other["loc"][:depth] == error["loc"] for other in others)
    return error["type"] == "too_short" and any(inside)


def _explain_one(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    _, keys = _follow(model, error["loc"])
    where = ".".join(keys) or "(whole job)"
    if kind == "extra_forbidden":
        models, _ = _follow(model, error["loc"][:-1])
        names = sorted({name for each in models for name in each.model_fields})
        return f"{where}: unknown key{did_you_mean(keys[-1], names)} (valid: {', '.join(names)})"
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        return _wrong_choice(f"{where}.{key}", context["tag"], context["expected_tags"])
    if kind == "union_tag_not_found":
        return f"{where}: the key {context['discriminator']} is missing; it says which variant this is"
    if kind == "literal_error":
        return _wrong_choice(where, given, context["expected"])
    if kind == "missing":
        return f"{where}: missing; this key is required"
    if kind == "invalid_key":
        return f"{where}: keys are names, got the {type(given).__name__} {given!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')} (got {_short(given)})"


def _wrong_choice(where: str, given: Any, expected: str) -> str:
    # pydantic lists the choices as text: 'a', 'b' or 'c'
    choices = [piece for index, piece in enumerate(expected.split("'")) if index % 2]
    near = did_you_mean(given, choices) if isinstance(given, str) else ""
    return f"{where}: {_short(given)} is not valid{near} (valid: {expected})"


def _short(value: Any) -> str:
    try:
        text = _REPR.repr(value)  # never spells out a list of aliases of lists of aliases of lists ...
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def field_names_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    """Return the field names valid at a path inside a model, following lists and unions.

    Args:
        model: where the path starts.
        path: field names, list indices and, after a field that is a union, the tag of the variant; without the
            tag, the fields of all its variants are returned.
    """
    models, _ = _follow(model, path)
    return {name for each in models for name in each.model_fields}


def _follow(model: type[BaseModel], path: tuple[int | str, ...]) -> tuple[set[type[BaseModel]], list[str]]:
    """Return the models a path may end in, and the path as it is written in a job file."""
    models, keys = {model}, []
    for part in path:
        # pydantic inserts the tag of a union's variant into the path; it narrows the choice, but is not a key.
        named = any(part == each.__name__ for each in models)  # a union of one model and, say, a path
        variants = {each for each in models if part in _tags(each)} if len(models) > 1 or named else set()
        if variants:
            models = variants
            continue
        keys.append(str(part))
        fields = [each.model_fields[part] for each in models if part in each.model_fields]
        # A list index or the key of a dictionary leads to the models we already have.
        models = {found for field in fields for found in _models_in(field.annotation)} or models
    return models, keys


def _tags(model: type[BaseModel]) -> set[Any]:
    literals = [f.annotation for f in model.model_fields.values() if get_origin(f.annotation) is Literal]
    return {model.__name__, *(value for literal in literals for value in get_args(literal))}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in _models_in(part)}
