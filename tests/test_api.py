"""emloom from Python: the surface as text, what the verbs give back, and the tour."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import emloom
from emloom import api
from emloom.api.parts import path_of, voxel_size_of, words_of
from emloom.cli.manual import signature_text
from emloom.geometry import Grid
from emloom.io.volume import ArrayVolume
from emloom.run.executor import Serial
from emloom.testing.phantom import PhantomSpec, write_phantom
from emloom.view.spot import Spot
from tests.tasks.cubes import job, write_stack
from tests.tasks.test_predict import inputs as inputs
from tests.tasks.test_synapses import folder as folder
from tests.tasks.weaving import GRID, OFFSETS, few_values

ROOT = Path(__file__).parents[1]
SURFACE = """
open(path, *, voxel_size_nm=None, offset_nm=None, kind=None) -> Volume
save(volume, path, *, voxel_size_nm=None, kind=None) -> Volume
check(job) -> list[Finding]
qc(raw, output, *, tile_vox=None, mask=None, artifacts=None, **where) -> Result
align(raw, output, *, model=None, qc=None, **where) -> Result
repair(raw, output, *, qc=None, bad=None, fill=None, **where) -> Result
train(job, output, *, device='auto', workers=1, progress=None) -> Path
predict(raw, model, output, *, box=None, mask=None, orientations=1, **where) -> dict[str, Volume]
segment(affinities, output, threshold, *, mask=None, min_segment_vox=0, **where) -> Volume
synapses(output, *, segmentation, raw=None, model=None, prediction=None, **where) -> Result
connectome(synapses, output, *, segmentation=None, **where) -> Result
evaluate(found, truth, output, *, metrics=None, raw=None, **where) -> Result
view(*volumes, at=None, select=(), synapses=None, port=0, **layers) -> Viewer
run(job, output=None, *, loaders=1, **where) -> Result
Where: workers, scheduler, block_minutes, progress, settings
WhereAnew: workers, scheduler, block_minutes, progress, settings, overwrite
OnDevice: workers, scheduler, block_minutes, progress, settings, overwrite, device
Result: folder, summary, volume_name, table_name, report, volume, table
"""


def shape_of(name: str) -> str:
    signature = inspect.signature(getattr(emloom, name))
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return f"{name}{text} -> {signature.return_annotation}"


def test_the_surface_is_this() -> None:
    said = [shape_of(name) for name in api.VERBS]
    for name in ("Where", "WhereAnew", "OnDevice"):
        said.append(f"{name}: {', '.join(getattr(emloom, name).__annotations__)}")
    members = [n for n, m in vars(emloom.Result).items() if isinstance(m, property) or hasattr(m, "attrname")]
    fields = list(emloom.Result.__dataclass_fields__)
    said.append(f"Result: {', '.join([*fields, *members])}")
    assert "\n".join(said) == SURFACE.strip()


def test_every_name_is_where_it_is_looked_for() -> None:
    stub = ast.parse((ROOT / "src" / "emloom" / "__init__.pyi").read_text())
    typed = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(api.__all__) == set(emloom._VERBS)
    assert typed < set(dir(emloom))
    for name in typed - {"run", "view"}:
        assert getattr(emloom, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'emloom' has no attribute 'qcc'"):
        emloom.qcc  # noqa: B018


def test_packages_that_are_verbs_stay_packages() -> None:
    for package in (emloom.run, emloom.view):
        verb = getattr(api, package.__name__.partition(".")[2])
        assert inspect.signature(package) == inspect.signature(verb)
        assert importlib.import_module(package.__name__) is package
    assert emloom.run.executor.Serial is Serial
    assert emloom.view.spot.Spot is Spot
    with pytest.raises(TypeError, match="workrs"):
        emloom.run("job.yaml", workrs=2)


def test_the_import_is_light_and_typed(tmp_path: Path) -> None:
    code = "import sys, emloom\ndir(emloom)\nsys.exit(len({'numpy', 'torch', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (ROOT / "src" / "emloom" / "py.typed").exists()


def test_signatures_read_as_they_are_written() -> None:
    assert signature_text(api.train, "emloom.train").splitlines()[:4] == [
        "emloom.train(",
        "    job: AnyJob | Target,",
        "    output: Target,",
        "    *,",
    ]


# ---- values -----------------------------------------------------------------------------------------------------


def test_arrays_are_written_and_come_back(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    made = emloom.save(values, tmp_path / "raw.zarr", voxel_size_nm=(40, 4, 4), kind="raw")
    opened = emloom.open(tmp_path / "raw.zarr")
    assert np.array_equal(opened.read(emloom.Box((0, 0, 0), (2, 3, 4))), values)
    assert made.info.grid == Grid((40.0, 4.0, 4.0))
    assert opened.info.kind == "raw"
    with pytest.raises(emloom.InputError, match="voxel_size_nm"):
        emloom.save(values, tmp_path / "other.zarr")
    with pytest.raises(emloom.InputError, match="exists"):
        emloom.save(made, tmp_path / "raw.zarr")


def test_a_volume_stands_for_its_path(tmp_path: Path) -> None:
    array = ArrayVolume(np.zeros((2, 2, 2), np.uint8), Grid((8, 8, 8)))
    saved = emloom.save(array, tmp_path / "a.zarr")
    assert path_of(saved) == str(tmp_path / "a.zarr")
    assert path_of(tmp_path) == str(tmp_path)
    with pytest.raises(emloom.InputError, match=r"emloom\.save"):
        path_of(array)


def test_a_volume_and_its_path_are_the_same_job(tmp_path: Path) -> None:
    saved = emloom.save(np.zeros((4, 4, 4), np.uint8), tmp_path / "a.zarr", voxel_size_nm=(40, 4, 4))
    assert voxel_size_of(saved) == voxel_size_of(tmp_path / "a.zarr") == {}
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["raw"] = np.zeros((4, 4, 4), np.uint8)
    bare = emloom.open(tmp_path / "bare.h5" / "raw", voxel_size_nm=(40, 4, 4))
    assert voxel_size_of(bare) == {"voxel_size_nm": (40.0, 4.0, 4.0)}


def test_settings_are_overruled_by_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("rules: {reach: 4, spreads: 3}\ntile_vox: 32\n")
    given = {"raw": "a", "mask": None, "rules": {"reach": 9}}
    expected = {"raw": "a", "rules": {"reach": 9, "spreads": 3}, "tile_vox": 32}
    assert words_of(given, {"settings": tmp_path / "more.yaml"}) == expected
    assert words_of({"raw": "a", "mask": None}, {}) == {"raw": "a"}
    (tmp_path / "list.yaml").write_text("- 1\n")
    for wrong in ("list.yaml", "none.yaml"):
        with pytest.raises(emloom.InputError, match=wrong):
            words_of({}, {"settings": tmp_path / wrong})


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        emloom.qc("raw.zarr", tmp_path / "qc", workrs=2)  # type: ignore[call-arg]
    with pytest.raises(emloom.InputError, match="did you mean 'tile_vox'"):
        emloom.qc("raw.zarr", tmp_path / "qc", settings={"tile_voxels": 64})
    with pytest.raises(emloom.InputError, match="does not exist"):
        emloom.open(tmp_path / "nothing.zarr")
    with pytest.raises(emloom.InputError, match="do not go together"):
        emloom.evaluate("a.zarr", "b.zarr", tmp_path / "s", metrics=["voi", "f1"])
    with pytest.raises(emloom.InputError, match="a job, which says everything itself"):
        emloom.run("job.yaml", settings={"a": 1})


# ---- verbs ------------------------------------------------------------------------------------------------------


def test_a_model_predicts_and_its_affinities_are_segmented(inputs: tuple[str, str], tmp_path: Path) -> None:
    raw, checkpoint = inputs
    told: list[tuple[str, int, int]] = []
    box = emloom.Box((0, 0, 0), (16, 24, 24))
    heads = emloom.predict(
        emloom.open(raw), checkpoint, tmp_path / "p.zarr", box=box, progress=lambda *n: told.append(n)
    )
    assert set(heads) == {"affinities"}
    assert heads["affinities"].info.shape == box.shape
    assert told[-1][0] == "predict"
    assert told[-1][1] == told[-1][2]
    with pytest.raises(emloom.InputError, match="another job"):
        emloom.predict(raw, checkpoint, tmp_path / "p.zarr")


def test_what_is_segmented_is_scored(tmp_path: Path) -> None:
    woven = ArrayVolume(few_values((20, 24, 24), 1), GRID, "affinities", OFFSETS)
    affinities = emloom.save(woven, tmp_path / "aff.zarr")
    cells = {"segmentation": {"cell_shape_vox": [16, 16, 16]}}
    found = emloom.segment(affinities, tmp_path / "seg.zarr", 0.6, settings=cells)
    assert found.info.kind == "labels"
    # The same call finds it done; another job in its place is refused, unless it shall be replaced.
    assert emloom.segment(affinities, tmp_path / "seg.zarr", 0.6, settings=cells).info == found.info
    with pytest.raises(emloom.InputError, match=r"threshold was 0\.6, is 0\.5"):
        emloom.segment(affinities, tmp_path / "seg.zarr", 0.5, settings=cells)
    emloom.segment(affinities, tmp_path / "seg.zarr", 0.5, settings=cells, overwrite=True)
    scores = emloom.evaluate(found, found, tmp_path / "scores")
    assert scores.summary["voi_split"] == scores.summary["voi_merge"] == 0
    assert scores.report.exists()
    for missing in ("volume", "table"):
        with pytest.raises(emloom.InputError, match="holds no"):
            getattr(scores, missing)


def test_synapses_make_a_graph(folder: Path, tmp_path: Path) -> None:
    segments = emloom.open(folder / "seg.zarr")
    found = emloom.synapses(tmp_path / "syn", prediction=folder / "sites.zarr", segmentation=segments)
    assert len(found.table) > 0
    assert found.report.exists()
    graph = emloom.connectome(tmp_path / "syn", tmp_path / "graph", segmentation=segments)
    assert graph.summary["contacts"] == len(found.table)
    assert graph.summary["edges"] == len(graph.table) > 0


@pytest.mark.slow
def test_a_stack_is_aligned_and_repaired(tmp_path: Path) -> None:
    write_phantom(PhantomSpec(shape=(16, 64, 64), seed=1), tmp_path / "tissue")
    raw = emloom.open(tmp_path / "tissue" / "raw.zarr")
    aligned = emloom.align(raw, tmp_path / "aligned", model="shift")
    assert len(aligned.table) == aligned.volume.info.shape[0] == 16
    fixed = emloom.repair(tmp_path / "aligned", tmp_path / "fixed", bad=[5], fill="nearest")
    assert fixed.volume.info.shape == aligned.volume.info.shape
    assert fixed.summary["bad"] == [5]


@pytest.mark.slow
def test_a_whole_job_is_carried_out(tmp_path: Path) -> None:
    made = job(write_stack(tmp_path / "stack.h5"))
    result = emloom.run(made, tmp_path / "out", loaders=0)
    assert result.report == tmp_path / "out" / "report.html"
    assert result.report.exists()
    assert result.summary["spec"]["name"] == "cubes"


@pytest.mark.slow
def test_a_job_is_checked_and_trained(tmp_path: Path) -> None:
    made = job(write_stack(tmp_path / "stack.h5"))
    made = made.model_copy(update={"training": made.training.model_copy(update={"steps": 2, "validate_every": 2})})
    assert all(finding.level != "error" for finding in emloom.check(made))
    steps: list[int] = []
    model = emloom.train(made, tmp_path / "out", workers=0, progress=lambda _, done, __: steps.append(done))
    assert model.exists()
    assert steps[-1] == 2


def test_a_result_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "qc.json").write_text(json.dumps({"raw": "<a>", "n_bad_sections": 3, "flags": []}))
    result = emloom.Result.of(tmp_path, "qc.json")
    assert result.summary["n_bad_sections"] == 3
    shown = result._repr_html_()
    assert "&lt;a&gt;" in shown
    assert "flags" not in shown


# ---- the tour ---------------------------------------------------------------------------------------------------


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "docs" / "notebooks" / "tour.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    for number, cell in enumerate(cells):
        assert not cell["outputs"], "outputs are not kept: they would grow stale"
        exec(
            compile("".join(cell["source"]), f"cell {number}", "exec"), names
        )  # its own text, from this repository
    scores, graph = names["scores"], names["graph"]
    assert isinstance(scores, emloom.Result)
    assert isinstance(graph, emloom.Result)
    assert scores.summary["voi_split"] + scores.summary["voi_merge"] < 1.5
    assert graph.summary["edges"] == len(graph.table) > 0
    assert (tmp_path / "tour" / "qc" / "report.html").exists()


def test_the_tour_calls_what_there_is() -> None:
    notebook = json.loads((ROOT / "docs" / "notebooks" / "tour.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    used = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "emloom"
    }
    assert {"open", "save", "qc", "segment", "evaluate", "connectome", "view"} <= used <= set(api.__all__)
