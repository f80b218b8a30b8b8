"""Jobs as values: the frozen base class of every specification.

A `Spec` validates, prints, hashes, dumps to YAML and is sent to workers. It says *what* is computed, never
*where*, so its hash is about the science. Unknown keys are errors; all problems are reported at once, each with
its path and the nearest valid name.

Round trip: ``S.from_yaml(s.to_yaml()) == s`` and equal specs have equal hashes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from emloom.errors import InputError, did_you_mean


class Spec(BaseModel):
    """Frozen, validated description of a piece of work; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, defaults included: the *resolved* specification."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the resolved specification as YAML."""
        return yaml.dump(self.to_dict(), Dumper=_BlockDumper, sort_keys=False, default_flow_style=False)

    def content_hash(self) -> str:
        """Return the first 16 hex digits of the sha256 of the canonical JSON form."""
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
            data = yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise InputError(f"{source} is not valid YAML: {problem}") from None
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
        """Write the resolved specification as YAML."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")


class _BlockDumper(yaml.SafeDumper):
    """Keeps short lists of scalars on one line, so that a shape reads as `[64, 64, 64]`."""


def _flow_scalars(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_BlockDumper.add_representer(list, _flow_scalars)


def _explain(problem: ValidationError, model: type[BaseModel], source: str) -> str:
    lines = [_explain_one(error, model) for error in problem.errors(include_url=False)]
    head = f"{source} has {len(lines)} problem{'s' if len(lines) > 1 else ''}:"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _explain_one(error: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(whole job)"
    if error["type"] == "extra_forbidden":
        names = sorted(field_names_at(model, error["loc"][:-1]))
        hint = did_you_mean(str(error["loc"][-1]), names)
        valid = f" (valid: {', '.join(names)})" if names else ""
        return f"{where}: unknown key{hint}{valid}"
    if error["type"] == "literal_error":
        hint = did_you_mean(str(error["input"]), _quoted(str(error.get("ctx", {}).get("expected", ""))))
        return f"{where}: {error['input']!r} is not valid: {error['msg']}{hint}"
    if error["type"] == "missing":
        return f"{where}: missing; this key is required"
    return f"{where}: {error['msg'].removeprefix('Value error, ')} (got {_short(error['input'])})"


def _quoted(text: str) -> list[str]:
    return [piece for index, piece in enumerate(text.split("'")) if index % 2]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def field_names_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    """Return the field names valid at a path inside a model, following lists and tagged unions."""
    models = {model}
    for part in path:
        if isinstance(part, int):
            continue
        hit: set[type[BaseModel]] = set()
        for candidate in models:
            if part in candidate.model_fields:
                hit |= _models_in(candidate.model_fields[part].annotation)
        # A tagged union inserts the tag into the path: it names no field, so keep the models we have.
        models = hit or models
    return {name for candidate in models for name in candidate.model_fields}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in _models_in(part)}
