"""A specification is a value: it round-trips, hashes by content, and explains every mistake at once."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.spec import Spec, field_names_at


class Mutex(Spec):
    """Decode with signed edges."""

    kind: Literal["mutex"] = "mutex"
    bias: float = -0.5


class Flood(Spec):
    """Decode by flooding."""

    kind: Literal["flood"] = "flood"
    seeds: int = 3


class Source(Spec):
    """Where a volume lies."""

    path: str
    """Path of the volume."""
    box: Box | None = None
    """Voxels to use; all of them by default."""


class Job(Spec):
    """A job with every shape of field that jobs have."""

    sources: tuple[Source, ...] = ()
    decoder: Annotated[Mutex | Flood, Field(discriminator="kind")] = Mutex()
    precision: Literal["fp32", "bf16"] = "fp32"
    sigma_nm: float = Field(80.0, gt=0)
    steps: int = 10
    note: str = ""
    folder: Path = Path("out")
    grid: Grid | None = None
    named: dict[str, Mutex] = Field(default_factory=dict)

    @field_validator("note")
    @classmethod
    def _short(cls, note: str) -> str:
        if len(note) > 40:
            raise ValueError("a note has at most 40 letters: put the rest into the README")
        return note


text = st.text(st.characters(codec="utf-8"), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
decoders = st.one_of(st.builds(Mutex, bias=finite), st.builds(Flood, seeds=st.integers()))
cubes = st.builds(Box.whole, st.tuples(*[st.integers(0, 9)] * 3))
jobs = st.builds(
    Job,
    sources=st.lists(st.builds(Source, path=text, box=st.none() | cubes), max_size=3).map(tuple),
    decoder=decoders,
    precision=st.sampled_from(["fp32", "bf16"]),
    sigma_nm=st.floats(1e-3, 1e6),
    steps=st.integers(),
    note=text,
    grid=st.none() | st.builds(Grid, st.tuples(*[st.floats(0.1, 1e3)] * 3)),
    named=st.dictionaries(text, st.builds(Mutex, bias=finite), max_size=2),
)


@settings(deadline=None, max_examples=50)
@given(jobs)
def test_yaml_json_and_pickle_round_trip(job: Job) -> None:
    for again in (Job.from_yaml(job.to_yaml()), Job.from_dict(json.loads(json.dumps(job.to_dict())))):
        assert again == job
        assert again.content_hash() == job.content_hash()
    assert pickle.loads(pickle.dumps(job)) == job


@settings(deadline=None, max_examples=30)
@given(jobs)
def test_the_order_of_keys_does_not_change_the_hash(job: Job) -> None:
    backwards = dict(reversed(job.to_dict().items()))
    assert Job.from_dict(backwards).content_hash() == job.content_hash()


@settings(deadline=None, max_examples=50)
@given(jobs, jobs)
def test_hashes_are_equal_exactly_when_specs_are(a: Job, b: Job) -> None:
    # By text, because 0.0 == -0.0 while their texts differ.
    assert (a.to_yaml() == b.to_yaml()) == (a.content_hash() == b.content_hash())


@pytest.mark.parametrize(
    "change",
    [{"steps": 11}, {"note": "x"}, {"precision": "bf16"}, {"decoder": Flood()}, {"decoder": Mutex(bias=-0.4)},
     {"sources": (Source(path="a"),)}, {"folder": Path("other")}],
)  # fmt: skip
def test_the_hash_sees_every_field(change: dict[str, object]) -> None:
    assert Job(**change).content_hash() != Job().content_hash()  # type: ignore[arg-type]


def test_writing_a_default_out_does_not_change_the_hash() -> None:
    assert Job.from_yaml("steps: 10\ndecoder: {kind: mutex}").content_hash() == Job().content_hash()
    assert Job.from_yaml("sigma_nm: 80").content_hash() == Job().content_hash()  # 80 is 80.0


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "from emloom.spec import Spec\n"
        "class Job(Spec):\n    a: str = 'x'\n    b: dict[str, float] = {'k': 0.1, 'j': 1e-9}\n"
        "print(Job().content_hash())"
    )
    hashes = set()
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        hashes.add(run.stdout)
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == 16


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Job().steps = 3  # type: ignore[misc]


def test_short_lists_stay_on_one_line_in_yaml() -> None:
    job = Job(sources=(Source(path="a.h5", box=Box.whole((4, 5, 6))),))
    assert "shape: [4, 5, 6]" in job.to_yaml()


# ---- mistakes -------------------------------------------------------------------------------------------------


def complaint(data: object) -> str:
    with pytest.raises(InputError) as caught:
        Job.from_dict(data, "job.yaml")
    return str(caught.value)


def test_an_unknown_key_is_named_with_the_nearest_valid_one() -> None:
    message = complaint({"sigma": 3})
    assert "sigma: unknown key; did you mean 'sigma_nm'?" in message
    assert all(name in message for name in Job.model_fields)


@pytest.mark.fault(
    "jobs",
    "a job has several mistakes",
    "error: all of them at once, each with its path",
)
def test_all_problems_are_reported_at_once_with_their_paths() -> None:
    message = complaint(
        {
            "steps": "many",
            "sigma_nm": -1,
            "precision": "bf61",
            "sources": [{"path": "a"}, {"pth": "b"}],
            "note": "x" * 41,
        }
    )
    assert message.startswith("job.yaml has 6 problems:")
    lines = {line.split(":")[0].strip(): line for line in message.splitlines()[1:]}
    assert lines.keys() == {"steps", "sigma_nm", "precision", "sources.1.path", "sources.1.pth", "note"}
    assert "got 'many'" in lines["steps"]
    assert "did you mean 'bf16'?" in lines["precision"]
    assert "this key is required" in lines["sources.1.path"]
    assert "did you mean 'path'?" in lines["sources.1.pth"]
    assert "Value error" not in lines["note"]
    assert "put the rest into the README" in lines["note"]


def test_a_key_of_another_variant_is_not_called_valid() -> None:
    message = complaint({"decoder": {"kind": "flood", "bias": 1}})
    assert "decoder.bias: unknown key (valid: kind, seeds)" in message  # and the path has no tag in it


def test_a_wrong_item_does_not_make_its_list_too_short() -> None:
    class Many(Spec):
        sources: tuple[Source, ...] = Field(min_length=1)

    with pytest.raises(InputError, match="1 problem:\n  sources\\.0\\.path: missing"):
        Many.from_dict({"sources": [{}]})
    with pytest.raises(InputError, match="1 problem:\n  sources: Tuple should have at least 1 item"):
        Many.from_dict({"sources": []})


def test_a_wrong_or_missing_variant_says_which_there_are() -> None:
    wrong = complaint({"decoder": {"kind": "mutx"}})
    assert "decoder.kind: 'mutx' is not valid; did you mean 'mutex'? (valid: 'mutex', 'flood')" in wrong
    assert "decoder: the key 'kind' is missing" in complaint({"decoder": {"bias": 1}})


def test_a_box_in_a_job_obeys_the_rules_of_boxes() -> None:
    box = {"start": [0, 0, 0], "shape": [1, 1, -1]}
    assert "negative extent" in complaint({"sources": [{"path": "a", "box": box}]})
    box = {"start": [0, 0, 0.5], "shape": [1, 1, 1]}
    assert "sources.0.box.start.2" in complaint({"sources": [{"path": "a", "box": box}]})
    box = {"start": [0, 0, 0], "shape": [1, 1, 1], "stop": [2, 2, 2]}
    assert "sources.0.box.stop" in complaint({"sources": [{"path": "a", "box": box}]})


@pytest.mark.fault(
    "jobs",
    "a value of a job is NaN or infinite",
    "error: names the key",
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), ".nan"])
def test_what_is_not_equal_to_itself_cannot_be_a_value(value: object) -> None:
    assert "sigma_nm" in complaint({"sigma_nm": value})


@pytest.mark.fault(
    "jobs",
    "a job file is no YAML, a list, has a key twice, or a tag that would build Python objects",
    "error: job.yaml is not valid YAML: ...; nothing is built but plain data",
)
@pytest.mark.parametrize(
    ("yaml_text", "rule"),
    [
        ("steps: [1", "not valid YAML"),
        ("steps: 1\nnote: a\nsteps: 2", "'steps' stands twice"),
        ("decoder:\n  kind: mutex\n  kind: flood", "'kind' stands twice"),
        ("note: 2024-13-45", "not valid YAML"),
        ("? [a, b]\n: 1", "not valid YAML"),
        ("- steps", "holds list"),
        ("", "holds NoneType"),
        ("just words", "holds str"),
        ("1: 2", "keys are names"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_job_file_is_an_error_that_names_the_file_and_the_rule(yaml_text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        Job.from_yaml(yaml_text, "job.yaml")
    assert "job.yaml" in str(caught.value)


def test_files(tmp_path: Path) -> None:
    job = Job(note="ß → µ", steps=7)
    path = tmp_path / "job.yaml"
    job.dump(path)
    job.dump(path)  # replaces
    assert Job.load(path) == job
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot read the job file"):
        Job.load(tmp_path / "absent.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the job file"):
        Job.load(path)
    path.write_text("sigma_nm: 0")
    with pytest.raises(InputError, match=r"job\.yaml has 1 problem:\n  sigma_nm: "):
        Job.load(path)


# ---- introspection --------------------------------------------------------------------------------------------


def test_field_names_follow_lists_dictionaries_unions_and_tags() -> None:
    assert field_names_at(Job, ()) == set(Job.model_fields)
    assert field_names_at(Job, ("sources", 3)) == {"path", "box"}
    assert field_names_at(Job, ("named", "any key")) == {"kind", "bias"}
    assert field_names_at(Job, ("decoder",)) == {"kind", "bias", "seeds"}
    assert field_names_at(Job, ("decoder", "mutex")) == {"kind", "bias"}
    assert field_names_at(Job, ("decoder", "flood")) == {"kind", "seeds"}


def test_the_json_schema_describes_every_field_and_forbids_others() -> None:
    schema = Job.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"].keys() == Job.model_fields.keys()
    source = schema["$defs"]["Source"]
    assert source["properties"]["path"]["description"] == "Path of the volume."  # from the attribute's docstring
    assert source["required"] == ["path"]
    assert schema["properties"]["decoder"]["discriminator"]["propertyName"] == "kind"
