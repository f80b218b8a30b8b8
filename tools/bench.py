"""Run every benchmark in turn and write docs/benchmarks.md: `make bench`.

    python tools/bench.py [FOLDER [PAGE]]     # default: benchmarks docs/benchmarks.md

A benchmark is a script that prints what it measured and, in the end, ``RATIO name value``: how many times as fast
as the best peer. Everything it prints goes to the terminal as it comes, and onto the page. One that fails is on
the page, too, with its last words, and the exit status is 1. The load of the machine before each script stands
beside its ratio, so that a figure measured beside other work can be told.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emloom.io.files import write_text_atomic

ROOT = Path(__file__).parents[1]
_RATIO = re.compile(r"^RATIO (\S+) (\S+)$", re.M)
_PACKAGES = ("emloom", "numpy", "numba", "scipy", "torch", "tensorstore", "duckdb", "pyarrow")
_LAST_WORDS = 30


@dataclass(frozen=True)
class Run:
    """One benchmark, as it went.

    Attributes:
        name: of the script.
        words: its docstring: what is measured, and what its ratio is.
        output: what it printed, errors among it.
        status: its exit status.
        seconds: wall time.
        load: load average of the last minute when it began.
    """

    name: str
    words: str
    output: str
    status: int
    seconds: float
    load: float

    @property
    def about(self) -> str:
        """First line of its docstring."""
        return self.words.split("\n")[0]

    @property
    def ratios(self) -> list[tuple[str, str]]:
        """The `RATIO` lines, only where the script ended well."""
        return _RATIO.findall(self.output) if self.status == 0 else []


def run(script: Path, say: Callable[[str], object] | None = None) -> Run:
    """Run a benchmark; whatever it prints is said at once, on the terminal by default."""
    say = say or _say
    words = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    load, start, lines = os.getloadavg()[0], time.monotonic(), []
    say(f"== {script}\n")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            say(line)
    return Run(script.stem, words, "".join(lines), process.returncode, time.monotonic() - start, load)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def page(runs: Sequence[Run], date: str, machine: Sequence[str]) -> str:
    """Return the page in Markdown."""
    failed = [each for each in runs if each.status]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "This page is written by `make bench`, which runs every script in `benchmarks/` in turn: do not edit",
            "it.",
            "",
            f"Measured on {date}:",
            "",
            *(f"* {line}" for line in machine),
            "",
            "A ratio says how many times as fast as the best peer emloom was, on the same input, with the same",
            "result; below 1 it was slower. Where there is no peer, it stands below what is divided by what. One",
            "run on one machine: scripts interleave their rounds and take medians, so a ratio is steadier than",
            "its seconds, but a tenth is noise. A load well above the script's own means that other work ran",
            "beside it, and that its figures are worth less.",
            "",
            *([f"**{len(failed)} failed**: {', '.join(each.name for each in failed)}.", ""] if failed else []),
            "| benchmark | ratio | what is measured | load before | minutes |",
            "|---|---|---|---|---|",
            *(row for each in runs for row in _rows(each)),
            "",
            *(line for each in runs for line in _section(each)),
        ]
    )


def _rows(each: Run) -> list[str]:
    end = f"{each.about.replace('|', '/')} | {each.load:.1f} | {each.seconds / 60:.1f} |"
    if each.status:
        return [f"| [{each.name}](#{each.name}) | failed | {end}"]
    return [f"| [{name}](#{each.name}) | {value} | {end}" for name, value in each.ratios or [(each.name, "none")]]


def _section(each: Run) -> list[str]:
    output, head = _RATIO.sub("", each.output).strip(), []
    if each.status:
        head = [f"**Failed** with exit status {each.status}. Its last words:", ""]
        output = "\n".join(output.splitlines()[-_LAST_WORDS:])
    output = output.replace(f"{ROOT}/", "").replace("```", "'''")
    title = [f"## {each.name} {{#{each.name}}}", "", f"`benchmarks/{each.name}.py`: {each.words}", ""]
    return [*title, *head, "```text", output, "```", ""]


def machine() -> list[str]:
    """Return what the figures depend on: processor, memory, versions."""
    cpus = re.findall(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", _read("/proc/meminfo"), re.M)
    gib = f", {int(memory[1]) / 2**20:.0f} GiB of memory" if memory else ""
    return [
        f"{cpus[0] if cpus else platform.processor() or platform.machine()}, {os.cpu_count()} processors{gib}",
        f"{platform.system()}, Python {platform.python_version()}",
        ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main(folder: Path, to: Path) -> int:
    """Run all, write the page, return how the whole ended."""
    date = time.strftime("%Y-%m-%d")
    runs = [run(script) for script in sorted(folder.glob("*.py"))]
    write_text_atomic(to, page(runs, date, machine()))
    for each in runs:
        if each.status:
            sys.stdout.write(f"failed: {each.name} (exit status {each.status})\n")
    return 1 if any(each.status for each in runs) else 0


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:3]]
    defaults = [ROOT / "benchmarks", ROOT / "docs" / "benchmarks.md"]
    sys.exit(main(*given, *defaults[len(given) :]))
