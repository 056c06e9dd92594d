"""What an audit says: findings of a severity, each with a fix, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from mmfuse.types import visible

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The worst first."""
SHOWN, SHOWN_TOGETHER = 20, 4
"""Of a finding's rows, and of those that belong together, what a person is shown; JSON has all."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        check: Its kind, such as `images.unreadable`.
        severity: `error`: training on it would be refused or misleading; `warning`: look at it; `info`: know it.
        message: What and how much, in one sentence; never a text, an image or an identifier of the data.
        fix: What to do about it.
        rows: Ids of all rows; those that belong together, such as copies, in one tuple, the best examples first.
        count: How many rows or sets of them, or labels, there are.
    """

    check: str
    severity: Severity
    message: str
    fix: str
    rows: tuple[tuple[str, ...], ...] = ()
    count: int = 0


def finding(
    check: str, severity: Severity, message: str, fix: str, rows: Iterable[str | Sequence[str]] = ()
) -> Finding:
    """A finding that counts its rows."""
    together = tuple((row,) if isinstance(row, str) else tuple(row) for row in rows)
    return Finding(check, severity, message, fix, together, len(together))


def joined(together: Sequence[str]) -> str:
    """Rows that belong together in a few words, such as `a = b`."""
    more = f" and {len(together) - SHOWN_TOGETHER} more" if len(together) > SHOWN_TOGETHER else ""
    return " = ".join(together[:SHOWN_TOGETHER]) + more


@dataclass
class AuditReport:
    """What an audit found.

    Attributes:
        name: Of the dataset.
        source: Its manifest.
        facts: Lines on what is there.
        findings: The worst first.
        groups: By id, in the order of the rows, the row's group joined with all its copies and near copies; empty where
            the rows cannot be read.
    """

    name: str
    source: str
    facts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict, repr=False)

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [found for found in self.findings if found.severity == severity]

    def summary(self) -> str:
        """Such as `2 errors, 1 warning, 4 infos`."""
        counts = {severity: len(self.of(severity)) for severity in SEVERITIES}
        return ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items())

    def fails(self, strict: bool = False) -> bool:
        """Whether there is an error, or with `strict` a warning."""
        return bool(self.of("error") or (strict and self.of("warning")))

    def text(self) -> str:
        """All of it in lines, the worst first; the facts come last but for the summary."""
        lines = []
        for found in self.findings:
            lines.append(f"{found.severity.upper():8}{found.check}: {found.message}")
            if found.rows:
                shown = ", ".join(map(joined, found.rows[:3]))
                lines.append(f"        rows: {shown}" + (", ..." if found.count > 3 else ""))
            lines.append(f"        fix: {found.fix}")
        return "\n".join(map(visible, [*lines, *self.facts, f"{self.name}: {self.summary()}"]))

    def as_json(self) -> dict[str, Any]:
        """Plain values: `name`, `source`, `summary`, `facts` and `findings`."""
        return {
            "name": self.name,
            "source": self.source,
            "summary": {severity: len(self.of(severity)) for severity in SEVERITIES},
            "facts": self.facts,
            "findings": [asdict(found) for found in self.findings],
        }
