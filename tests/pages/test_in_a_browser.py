"""Every page in a headless Chromium: three widths, light and dark."""

import json

import pytest
from browser import WIDTHS, open_browser, why_not
from fake import fake_summary, mine
from run_folders import write_run

from mmfuse.benchmarking.report import page as benchmark_page
from mmfuse.data.audit.findings import AuditReport, Finding
from mmfuse.data.audit.page import page as audit_page
from mmfuse.evaluation.run_page import write_page

MISSING = why_not()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
LARGEST = 2 * 2**20


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def _pages(folder):
    long = "a_very_long_name_of_a_strategy_that_somebody_has_given_it_without_a_space"
    summary = json.loads(json.dumps(fake_summary()).replace('"tensor"', f'"{long}"'))
    finding = Finding("near_texts", "warning", "rows 1 and 2 are alike", "drop one", (("1", "2"),), 1)
    made = {
        "benchmark": benchmark_page(summary),
        "mined": benchmark_page(mine(fake_summary(1, seeds=1, folds=5), "kind")),
        "audit": audit_page(AuditReport("a set", "/data/manifest.yaml", ["120 rows"], [finding])),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    paths = [folder / f"{name}.html" for name in made]
    return [*paths, *(write_page(write_run(folder / kind, kind)) for kind in ("classes", "labels", "number", "text"))]


def test_pages_are_whole_on_every_screen(browser, tmp_path):
    found = {}
    for page in _pages(tmp_path):
        assert page.stat().st_size < LARGEST
        for width in WIDTHS:
            for dark in (False, True):
                browser.show(page, width, dark)
                faults = browser.faults()
                if faults:
                    found[f"{page.parent.name}/{page.name} {width} {'dark' if dark else 'light'}"] = faults[:5]
    assert not found


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("<p style='color: #999; background: #fff'>pale</p>", "contrast"),
        ("<div style='width: 2000px'>wide</div>", "overflow"),
        ("<svg width='9' height='9'></svg>", "svg without a name"),
        ("<script>nothing()</script>", "nothing is not defined"),
        ("<table><tr><th>x</th></tr></table>", "th without scope"),
    ],
)
def test_what_is_wrong_is_seen(browser, tmp_path, fault, said):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html lang='en'><body><main><h1>x</h1>{fault}</main></body></html>")
    browser.show(page, 360, False)
    assert said in " ".join(browser.faults())
