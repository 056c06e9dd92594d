"""An audit's report as one HTML file that needs nothing else; every text in it is escaped."""

from __future__ import annotations

from html import escape

from mmfuse.data.audit.findings import SEVERITIES, SHOWN, AuditReport, Finding, joined

_STYLE = """\
:root { color-scheme: light dark; --page: #f7f7f4; --card: #fff; --ink: #23272e; --quiet: #5b6370; --rule: #dddfe3;
  --error: #b3261e; --warning: #9a5b00; --info: #3b6fb6; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1c2026; --ink: #e7e9ec;
  --quiet: #a7b0bc; --rule: #363d47; --error: #ff8a80; --warning: #f0b35c; --info: #7fb0ef; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 28px 0 10px; }
p { margin: 0 0 .4rem; overflow-wrap: anywhere; }
.quiet, summary { color: var(--quiet); font-size: .9rem; }
.counts { display: flex; flex-wrap: wrap; gap: 8px; padding: 0; margin: 14px 0 0; list-style: none; }
.counts li { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 6px 12px; }
article { background: var(--card); border: 1px solid var(--rule); border-left: 5px solid; border-radius: 8px;
  padding: 12px 14px; margin: 0 0 10px; }
.error { border-left-color: var(--error); } .warning { border-left-color: var(--warning); }
.info { border-left-color: var(--info); }
article h3 { font: 600 .85rem/1.4 ui-monospace, monospace; margin: 0 0 4px; overflow-wrap: anywhere; }
.error h3, .n-error { color: var(--error); } .warning h3, .n-warning { color: var(--warning); }
.info h3, .n-info { color: var(--info); }
summary { cursor: pointer; }
code { font: .82rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; margin: 0;
  font: .82rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
_TITLES = {"error": "Errors", "warning": "Warnings", "info": "Worth knowing"}


def page(report: AuditReport) -> str:
    """The report as a page for a screen or paper of any width: what is wrong, the worst first, then what is there."""
    counts = "".join(
        f'<li class="n-{severity}">{escape(count)}</li>'
        for severity, count in zip(SEVERITIES, report.summary().split(", "), strict=True)
    )
    parts = [
        f"<h2>{_TITLES[severity]}</h2>{''.join(map(_card, report.of(severity)))}"
        for severity in SEVERITIES
        if report.of(severity)
    ]
    facts = escape("\n".join(report.facts)) or "nothing could be read"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data audit: {escape(report.name)}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="quiet">Data audit</p><h1>{escape(report.name)}</h1><p class="quiet">{escape(report.source)}</p>'
        f'<ul class="counts">{counts}</ul>{"".join(parts)}<h2>What is there</h2><pre>{facts}</pre>'
        "</main></body></html>\n"
    )


def _card(found: Finding) -> str:
    between = "<br>" if any(len(together) > 1 for together in found.rows) else ", "
    rows = between.join(escape(joined(together)) for together in found.rows[:SHOWN])
    shown = f"{SHOWN} of {found.count}; audit.json has all" if len(found.rows) > SHOWN else f"{found.count}"
    examples = f"<details><summary>rows ({shown})</summary><code>{rows}</code></details>" if rows else ""
    return (
        f'<article class="{found.severity}"><h3>{escape(found.check)}</h3><p>{escape(found.message)}</p>'
        f'<p class="quiet">Fix: {escape(found.fix)}</p>{examples}</article>'
    )
