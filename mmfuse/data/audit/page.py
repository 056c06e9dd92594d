"""An audit's report as one HTML file that needs nothing else; every text in it is escaped."""

from __future__ import annotations

from mmfuse.data.audit.findings import SEVERITIES, SHOWN, AuditReport, Finding, joined
from mmfuse.pages.markup import Html, tag
from mmfuse.pages.page import page_title, whole_page

_TITLES = {"error": "Errors", "warning": "Warnings", "info": "Worth knowing"}


def page(report: AuditReport) -> str:
    """The report as a page for a screen or paper of any width: what is wrong, the worst first, then what is there."""
    counts = zip(SEVERITIES, report.summary().split(", "), strict=True)
    parts = [
        tag("section", tag("h2", _TITLES[severity]), [_card(found) for found in report.of(severity)])
        for severity in SEVERITIES
        if report.of(severity)
    ]
    facts = "\n".join(report.facts) or "nothing could be read"
    return whole_page(
        f"Data audit: {report.name}",
        page_title("Data audit", report.name, report.source),
        tag("ul", [tag("li", count, class_=f"n-{severity}") for severity, count in counts], class_="counts"),
        parts,
        tag("section", tag("h2", "What is there"), tag("pre", facts, class_="wraps")),
        scripts=False,
    )


def _card(found: Finding) -> Html:
    several = any(len(together) > 1 for together in found.rows)
    rows = []
    for i, together in enumerate(found.rows[:SHOWN]):
        rows += [(tag("br") if several else ", ") if i else None, joined(together)]
    shown = f"{SHOWN} of {found.count}; audit.json has all" if len(found.rows) > SHOWN else f"{found.count}"
    examples = tag("details", tag("summary", f"rows ({shown})"), tag("code", rows)) if rows else None
    return tag("article", tag("h3", found.check), tag("p", found.message),
               tag("p", f"Fix: {found.fix}", class_="note"), examples, class_=f"finding {found.severity}")  # fmt: skip
