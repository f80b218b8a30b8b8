"""What was looked at and found, by `emloom doctor` or a validator: findings, each with the line that fixes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `warning`: slow, unsafe or suspicious; `error`: it does not work like this.
        what: the thing, one or two words.
        text: what was found.
        fix: a line to type, or what to change; None where nothing is to be done.
    """

    level: Level
    what: str
    text: str
    fix: str | None = None


@dataclass(frozen=True)
class Report:
    """All findings about one folder of one machine, or one file."""

    folder: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"folder": self.folder, "ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def to_text(self) -> str:
        """Return one line per finding, and below it the line that fixes it."""
        lines = []
        width = max([14, *(len(finding.what) + 2 for finding in self.findings)])
        for finding in self.findings:
            lines.append(f"{finding.level:<9}{finding.what:<{width}}{finding.text}")
            lines += [] if finding.fix is None else [f"{'':<{width + 9}}> {finding.fix}"]
        counts = {level: sum(f.level == level for f in self.findings) for level in ("warning", "error")}
        return "\n".join([*lines, f"{counts['error']} errors, {counts['warning']} warnings"])
