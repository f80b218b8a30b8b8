"""The table of faults in docs/faults.md, made from the tests that do them.

A test that does something bad to emloom says so beside it, once for each thing that it does::

    @pytest.mark.fault("containers", "a chunk file of a zarr array is cut short", "error: ...; write it anew")
    def test_damaged_chunks_are_replaced_whole_only(tmp_path): ...

`make faults` writes the page anew; tests/test_faults.py fails where the page and the tests differ.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"

AREAS = {
    "containers": "Volumes: zarr, N5, precomputed, wkw, HDF5, NumPy",
    "images": "Images and stacks",
    "values": "Strange values, shapes and types",
    "units": "Units, voxel sizes and other contradictions",
    "tables": "Tables and text",
    "tracings": "Tracings: NML, archives, SWC",
    "jobs": "Job files and arguments",
    "models": "Models and checkpoints",
    "paths": "Paths, names and links",
    "disk": "Disks that are full, read-only or lie",
    "processes": "Processes that are killed, interrupted or run twice",
    "workers": "Workers of a cluster",
    "network": "Downloads, buckets and remote volumes",
    "pages": "Pages that are served",
    "environment": "The environment and the machine",
}
"""Parts of the page, in order: the first word of a mark, and its heading."""

_HEAD = """# Faults that were tried

What was done to emloom, what happens then, and the test that does it. The table is made from the tests
themselves (`make faults`), and the suite fails where the two differ. So every row is tried again by `make test`.

Four rules hold for all of them.

- Bad input is one paragraph on the error stream and exit status 2. It names the value, the rule and the way out.
- An output is whole or it is not there. What stood at its place before stays until the new one is whole, unless
  somebody asked to replace it: `--overwrite` of a result that is made block by block, and a stage of a pipeline
  that changed, begin by deleting it.
- What was finished before a crash stays finished. The same command goes on from there and ends with the same bits.
- Nothing that a file says is run, unpacked or looked up outside of its own folder.

Parsers are also fed with bytes that nobody thought of: see [below](#bytes-that-nobody-thought-of).
"""

_TAIL = """## Bytes that nobody thought of

`make fuzz` feeds the parsers of tracings, tables, job files, checkpoints and volume metadata with bytes that a
fuzzer makes up. The fuzzer sees which lines of emloom a change reaches, and goes on from what reached new ones.
For any bytes the answer is a value or an `InputError`, in bounded time and memory. Everything else is a finding.
What was found became a test, and stands in the table above. A short run with fixed examples is part of
`make test`.

```sh
make fuzz                  # a minute for each parser
make fuzz SECONDS=600      # as long as one likes
```

## What is not promised

- A process that is killed outright (`kill -9`) cannot clean up. Its hidden `.*.partial-*` sibling stays, is never
  read, and may be deleted.
- zarr 2, N5 and precomputed have no checksums. Damage inside a chunk is noticed where it breaks the compressed
  frame; a flipped bit that still decodes is a wrong voxel. zarr 3, as emloom writes it, has a checksum for every
  chunk.
- NumPy and TIFF volumes are written in place. A process that is killed while it writes a block leaves that block
  half old, half new. `emloom import` and `emloom export` build them under another name and move them when whole.
"""


@dataclass(frozen=True)
class Fault:
    """One thing that is done to emloom: its area, what is done, what happens, and the test that does it."""

    area: str
    what: str
    happens: str
    test: str


def faults(folder: Path = ROOT / "tests") -> list[Fault]:
    """Return every marked fault, in the order of files and lines."""
    return [fault for path in sorted(folder.rglob("test_*.py")) for fault in _in_file(path)]


def page() -> str:
    """Return the text of docs/faults.md."""
    listed = faults()
    parts = [_HEAD]
    for area, title in AREAS.items():
        rows = [fault for fault in listed if fault.area == area]
        lines = [f"| {_cell(f.what)} | {_cell(f.happens)} | `{f.test}` |" for f in rows]
        parts.append(
            "\n".join([f"## {title}\n", "| what is done | what happens | test |", "|---|---|---|", *lines])
        )
    return "\n\n".join(part.strip() for part in [*parts, _TAIL]) + "\n"


def _in_file(path: Path) -> Iterator[Fault]:
    text = path.read_text(encoding="utf-8")
    if "mark.fault(" not in text:
        return
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).rpartition(".")[2] == "fault":
                    area, what, happens = (ast.literal_eval(word) for word in mark.args)
                    yield Fault(area, what, happens, f"{path.relative_to(ROOT)}::{node.name}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
