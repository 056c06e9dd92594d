"""The report as a reader's browser sees it: a small parser builds its tree, and tests ask the tree."""

import copy
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fake import ROWS, fake_built_in, fake_summary, finish, mine

from mmfuse.benchmarking.appendix import appendix
from mmfuse.benchmarking.charts import pareto_front
from mmfuse.benchmarking.judge import contrast
from mmfuse.benchmarking.report import page, write_report
from mmfuse.pages import markup
from mmfuse.pages.charts import place_labels

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;|[x](http://evil.example)`"""
SIGNED = re.compile(r"^[+−]\d")


class Node:
    def __init__(self, name, attributes, parent=None):
        self.name, self.attributes, self.parent, self.children = name, dict(attributes), parent, []

    def find(self, name=None, class_=None):
        for child in self.children:
            if isinstance(child, Node):
                classes = (child.attributes.get("class") or "").split()
                if name in (None, child.name) and (class_ is None or class_ in classes):
                    yield child
                yield from child.find(name, class_)

    def text(self):
        return "".join(child.text() if isinstance(child, Node) else child for child in self.children)


class Tree(HTMLParser):
    """Elements must close in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.root = self.here = Node("", [])
        self.feed(text)
        self.close()
        assert self.here is self.root, f"<{self.here.name}> is not closed"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        node = Node(tag, attrs, self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_endtag(self, tag):
        assert self.here.name == tag, f"</{tag}> closes <{self.here.name}>"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)


def tree(summary):
    return Tree(page(summary)).root


def notices(root):
    return {node.attributes["data-notice"] for node in root.find("p", "notice")}


def tables(root):
    """By table, its rows as lists of texts."""
    return [[[cell.text() for cell in row.children] for row in table.find("tr")] for table in root.find("table")]


@pytest.fixture(scope="module")
def summary():
    return fake_summary()


@pytest.fixture(scope="module")
def built_in():
    return fake_built_in()


@pytest.fixture(params=["two tasks", "six tasks", "one seed, folds, mined", "no diagnostics"])
def any_summary(request, summary, built_in):
    return {
        "two tasks": lambda: summary,
        "six tasks": lambda: built_in,
        "one seed, folds, mined": lambda: mine(fake_summary(1, seeds=1, folds=5), "kind"),
        "no diagnostics": lambda: fake_summary(2, diagnostics=False),
    }[request.param]()


def test_all_files_are_written(summary, tmp_path):
    write_report(tmp_path, summary)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "table.md", "table.tex", "methods.md"}
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_is_well_formed(any_summary):
    root = tree(any_summary)
    ids = [node.attributes["id"] for node in root.find() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    links = {node.attributes["href"] for node in root.find() if "href" in node.attributes}
    assert links
    assert links <= {f"#{name}" for name in ids}
    assert [node.name for node in root.find("h1")] == ["h1"]


def test_one_seed_is_not_asked_how_many_are_needed(any_summary):
    headings = {node.text() for node in tree(any_summary).find("h2")}
    assert ("Seeds needed" in headings) == (any_summary["seeds"] > 1)
    assert "one seed does not show" not in page(any_summary)


def test_nothing_is_fetched(any_summary):
    text = page(any_summary)
    root = Tree(text).root
    for node in root.find():
        assert "src" not in node.attributes
        assert node.attributes.get("href", "#").startswith("#")
        assert node.name not in {"link", "img", "iframe", "object", "embed"}
    assert not re.search(r"url\(|@import|https?://|//cdn", text)


def test_every_image_and_table_says_what_it_is(any_summary):
    root = tree(any_summary)
    for node in root.find():
        if node.attributes.get("role") in {"img", "region"}:
            assert node.attributes["aria-label"]
        if node.name == "svg" and node.attributes.get("viewbox"):
            assert node.attributes["role"] == "img"
    for table in root.find("table"):
        assert all(cell.attributes.get("scope") for cell in table.find("th"))
        for body in table.find("tbody"):
            assert all(row.children[0].name == "th" for row in body.find("tr"))


def test_the_rows_of_a_table_are_of_one_width(any_summary):
    for table in tree(any_summary).find("table"):
        head = next(table.find("thead"))
        width = sum(int(cell.attributes.get("colspan", 1)) for cell in next(head.find("tr")).children)
        for body in table.find("tbody"):
            for row in body.find("tr"):
                assert sum(int(cell.attributes.get("colspan", 1)) for cell in row.children) == width


def test_verdicts_come_first_and_every_strategy_is_there(any_summary):
    root = tree(any_summary)
    main = next(root.find("main"))
    assert [child.name for child in main.children][:2] == ["header", "section"]
    first = main.children[1]
    assert first.attributes["class"].split()[0] == "verdicts"
    verdicts = [node.text() for node in first.find("p", "verdict")]
    assert verdicts == [task["verdict"] for task in any_summary["tasks"].values()]
    for section, task in zip(root.find("details", "task"), any_summary["tasks"].values(), strict=True):
        drawn = [row for row in section.find("div", "line") if list(row.find("b"))]
        assert [next(row.find("b")).text() for row in drawn] == [s["row"] for s in task["strategies"]]
        ranked = next(section.find("table"))
        names = {next(row.find("th")).text().removesuffix(" ⚠ mined") for row in list(ranked.find("tr"))[2:]}
        assert names == set(ROWS)
    written = appendix(any_summary)
    for name in ROWS:
        assert f"| {name} " in written


def test_scores_stand_in_the_page_as_in_the_summary(summary):
    task = summary["tasks"]["findings"]
    rows = {row[0]: row for row in tables(tree(summary))[1] if row[0] in ROWS}
    best, score = task["strategies"][0], task["strategies"][0]["score"]
    against = best["contrasts"]["image_only"]
    assert rows[best["row"]][3] == f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    assert rows[best["row"]][6].startswith(f"+{100 * against['difference']:.1f} [+{100 * against['low']:.1f}, ")
    assert f"| {best['row']} | {best['interaction']} |" in appendix(summary)


def test_gains_stand_beside_the_text_only_row(any_summary):
    root = tree(any_summary)
    for card in root.find("article"):
        assert "text_only" in [node.text() for node in card.find("b")]
    seen = 0
    for rows in tables(root):
        if any("against" in cell for cell in rows[0]):
            seen += 1
            assert any(SIGNED.match(cell) for row in rows for cell in row)
            assert "text_only" in " ".join(row[0] for row in rows[2:4])  # at the top, before any fusion
    assert seen == len(any_summary["tasks"])
    for part in appendix(any_summary).split("\n## ")[1:]:
        rows = [line for line in part.splitlines() if line.startswith("| ")]
        assert any(row.startswith("| text_only") for row in rows[2:4])


def test_what_is_said_by_others_is_text_and_never_markup(summary):
    bad = copy.deepcopy(summary)
    text = json.dumps(bad["tasks"]).replace('"tensor"', json.dumps(HOSTILE)).replace('"opacity"', json.dumps(HOSTILE))
    bad["tasks"] = {HOSTILE if name == "kind" else name: task for name, task in json.loads(text).items()}
    bad["rows"][HOSTILE] = {**bad["rows"].pop("tensor"), "label": HOSTILE, "matched": HOSTILE}
    bad["failed"] = [{"row": HOSTILE, "cell": HOSTILE, "reason": HOSTILE}]
    bad["name"] = HOSTILE
    bad["provenance"] |= {"leaks": [HOSTILE], "command": ["mmfuse", HOSTILE], "platform": HOSTILE}
    for task in bad["tasks"].values():
        task["verdict"] = HOSTILE
        task["rare_labels"] = [HOSTILE]
        task["positives"] |= dict.fromkeys(task["labels"], 3)
    root = tree(bad)
    assert not list(root.find("img"))
    assert len(list(root.find("script"))) == 1
    assert not any(name.startswith("on") for node in root.find() for name in node.attributes)
    assert next(root.find("h1")).text() == HOSTILE
    assert HOSTILE in next(root.find("p", "verdict")).text()
    assert any(HOSTILE in row[0] for table in tables(root) for row in table)
    written = appendix(bad)
    assert not re.search(r"(?<!\\)<[a-z/]", written)
    assert "](http" not in written
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def _seedless(summary):
    return summary | {"seeds": 1}


def _leaky(summary):
    return summary | {"provenance": summary["provenance"] | {"leaks": ["/data/m.yaml: group 'a' is in two splits"]}}


def _failing(summary):
    return summary | {"failed": [{"row": "mutan2", "cell": "mutan2-seed0", "reason": "OSError: /data/x is gone"}]}


def _unmatched(summary):
    rows = summary["rows"] | {"tensor": summary["rows"]["tensor"] | {"matched": "nearest: 0.81 of the target"}}
    return summary | {"matching": "parameters", "rows": rows}


def _undefined(summary):
    summary["tasks"]["kind"]["undefined_resamples"] = 3
    return summary


def _textless(summary):
    for task in summary["tasks"].values():
        task["strategies"] = [s for s in task["strategies"] if s["row"] != "text_only"]
        task["references"]["best_unimodal"] = "image_only"
        for strategy in task["strategies"]:
            strategy["contrasts"].pop("text_only", None)
    return summary


def _unlearned(summary):
    for strategy in summary["tasks"]["kind"]["strategies"]:
        strategy["missing"]["untrained"] = ["text"]
    return summary


def _mined(summary):
    return mine(summary, "kind")


def _synthetic(summary):
    return summary | {"built_in": True}


CHANGES = {
    "one-seed": _seedless,
    "leaks": _leaky,
    "failed": _failing,
    "unmatched": _unmatched,
    "undefined": _undefined,
    "no-text-only": _textless,
    "untrained": _unlearned,
    "mined": _mined,
    "built-in": _synthetic,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_warning_is_shown_when_and_only_when_it_is_due(summary, kind):
    usual = {"rare", "worse-without"}
    assert notices(tree(summary)) == usual
    changed = CHANGES[kind](copy.deepcopy(summary))
    assert notices(tree(changed)) == usual | {kind}
    if kind not in {"untrained", "worse-without"}:
        assert appendix(changed) != appendix(summary)


def test_no_warning_without_a_cause(summary):
    calm = copy.deepcopy(summary)
    for task in calm["tasks"].values():
        task["positives"] = dict.fromkeys(task["positives"], 10)
        for strategy in task["strategies"]:
            strategy["worse_without"] = []
    calm = finish(calm)
    assert notices(tree(calm)) == set()
    assert "⚠" not in page(calm) + appendix(calm)


def test_every_row_of_mined_labels_is_marked(summary):
    root = tree(mine(copy.deepcopy(summary), "findings"))
    mined, human = root.find("details", "task")
    assert "mined" in mined.attributes["class"].split()
    for section, marked in ((mined, True), (human, False)):
        for table in section.find("table"):
            for body in table.find("tbody"):
                assert all(("⚠ mined" in next(row.find("th")).text()) == marked for row in body.find("tr"))
        drawn = [row for row in section.find("div", "line") if list(row.find("b"))]
        assert all(("⚠" in row.text()) == marked for row in drawn)
    _, findings, kind = appendix(mine(copy.deepcopy(summary), "findings")).split("\n## ")
    for part, marked in ((findings, True), (kind, False)):
        rows = [line for line in part.splitlines() if line.startswith("| ")][2:]
        assert len(rows) == len(ROWS)
        assert all(("⚠ mined" in row) == marked for row in rows)


def test_rare_labels_are_flagged_in_their_row(summary):
    labels = next(table for table in tables(tree(summary)) if table[0][0] == "label")
    assert [row[0] for row in labels if "rare" in row[0]] == ["fracture rare"]


def test_a_failed_strategy_is_a_row_with_its_reason(summary):
    failing = _failing(copy.deepcopy(summary))
    found = [row for table in tables(tree(failing)) for row in table if row[0] == "mutan2"]
    assert found == [["mutan2", "failed: OSError: /data/x is gone"]] * 2
    assert "mutan2 (OSError)" in appendix(failing)


def test_the_table_holds_nothing_that_differs_between_two_runs(summary):
    again = _failing(_leaky(copy.deepcopy(summary)))
    other = _failing(_leaky(copy.deepcopy(summary)))
    for task in other["tasks"].values():
        for strategy in task["strategies"]:
            strategy |= {"seconds": 1.5, "samples_per_s": 3.25, "peak_mib": 7.0}
    other["provenance"] |= {"command": ["/else/mmfuse"], "platform": "else", "encoder_seconds": 0.25, "threads": 9}
    other["provenance"]["leaks"] = ["/else/m.yaml: group 'a' is in two splits"]
    other["failed"][0]["reason"] = "OSError: /else/x is gone"
    assert page(other) != page(again)
    assert appendix(other) == appendix(again)
    assert not re.search(r"/data|/else|seconds|MiB|samples/s", appendix(again))


def test_many_tasks_have_an_overview_and_are_folded(summary, built_in):
    assert all("open" in node.attributes for node in tree(summary).find("details", "task"))
    root = tree(built_in)
    assert not any("open" in node.attributes for node in root.find("details", "task"))
    overview = next(root.find("table", "matrix"))
    assert len(next(overview.find("tr")).children) == 1 + len(built_in["tasks"])
    one = copy.deepcopy(summary)
    del one["tasks"]["kind"]
    assert not list(tree(one).find("table", "matrix"))


def test_the_best_and_what_cannot_be_told_from_it_are_bold_in_the_overview(built_in):
    overview = next(tree(built_in).find("table", "matrix"))
    for column, task in enumerate(built_in["tasks"].values(), 1):
        bold = {next(row.find("th")).text() for row in overview.find("tr") if list(row.children[column].find("b"))}
        letters = set(task["strategies"][0]["letters"])
        assert bold == {s["row"] for s in task["strategies"] if letters & set(s["letters"])}


def test_bayes_limits_are_drawn_only_where_they_are_of_the_metric(built_in):
    root = tree(built_in)
    section = next(root.find("details", "task"))
    assert list(section.find("line", "bayes"))
    assert "best from both 0.836" in section.text()
    assert "best from both (Bayes)" in next(root.find("table", "matrix")).text()
    other = copy.deepcopy(built_in)
    for task in other["tasks"].values():
        task["metric"] = "f1_macro"
    root = tree(other)
    section = next(root.find("details", "task"))
    assert not list(section.find("line", "bayes"))
    assert "Bayes" not in next(root.find("table", "matrix")).text()
    assert "Best possible accuracy (not f1_macro, so not drawn): text 0.716, image 0.716, both 0.836" in section.text()


def test_without_diagnostics_their_sections_are_left_out(summary):
    titles = {node.text() for node in tree(summary).find("h3")}
    without = {node.text() for node in tree(fake_summary(diagnostics=False)).find("h3")}
    assert titles - without == {"When a modality is missing", "Interaction profile"}


def test_without_emap_only_its_column_is_left_out():
    profile = [t for t in tables(tree(fake_summary(emap=False))) if "Shapley interaction" in t[0]]
    assert profile
    assert all("EMAP gap" not in table[0] and "Shapley φ text" in table[0] for table in profile)


def test_a_metric_that_diagnostics_do_not_have_is_replaced_by_accuracy(summary):
    other = copy.deepcopy(summary)
    other["tasks"]["kind"]["metric"] = "average_precision_macro"
    section = list(tree(other).find("details", "task"))[1]
    assert "Accuracy on 1,840 rows" in section.text()


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_is_not_known_is_a_dash(summary, unknown):
    bare = copy.deepcopy(summary)
    for task in bare["tasks"].values():
        for strategy in task["strategies"][1::2]:
            strategy["score"] |= {"low": unknown, "high": unknown, "seed_sd": unknown}
            strategy |= dict.fromkeys(("validation", "seconds", "samples_per_s", "steps", "macs"), unknown)
            strategy["uncalibrated"] = {"ece": unknown, "nll": unknown}
            strategy["metrics"] = dict.fromkeys(strategy["metrics"], unknown)
            strategy["per_label"] = {name: dict.fromkeys(of, unknown) for name, of in strategy["per_label"].items()}
            for found in strategy["contrasts"].values():
                found |= dict.fromkeys(("low", "high", "p", "p_holm"), unknown)
            for gone in ("text", "image"):
                for curve in strategy["missing"][gone].values():
                    curve |= {"values": [unknown] * 11, "mean": unknown}
            strategy["emap"]["gap"] = dict.fromkeys(strategy["emap"]["gap"], unknown)
    for written in (tree(bare).text(), appendix(bare)):
        assert not re.search(r"\b(nan|None|inf)\b", written)
        assert written.count(markup.DASH) > 100
    assert "nan" not in re.sub(r"<title>.*?</title>", "", page(bare)).replace("nance", "")


def test_a_class_of_a_plugin_is_shown_as_it_is_called(summary):
    other = copy.deepcopy(summary)
    other["tasks"]["kind"]["strategies"][0]["interaction"] = "quantum"
    assert any("quantum" in row for table in tables(tree(other)) for row in table)


def test_the_difference_of_two_references_is_turned_round(summary):
    by_name = {s["row"]: s for s in summary["tasks"]["findings"]["strategies"]}
    told, turned = by_name["late"]["contrasts"]["image_only"], contrast(by_name["image_only"], "late", by_name)
    assert turned["difference"] == -told["difference"]
    assert (turned["low"], turned["high"], turned["p_holm"]) == (-told["high"], -told["low"], told["p_holm"])
    assert contrast(by_name["late"], "late", by_name) is None


def test_seeds_needed_and_provenance_are_told(summary):
    text = tree(summary).text()
    assert "no number: no difference was observed" in text
    assert "6 seeds" in text
    of = summary["provenance"]
    for said in (of["commit"], of["manifest"]["sha256"], "mmfuse benchmark configs/chest.yaml seeds=3", "torch 2.14.1"):
        assert said in text


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (markup.score, 0.71249, "0.712"),
        (markup.score, None, "–"),
        (markup.spread, 0.00412, "0.0041"),
        (markup.points, 0.0214, "+2.1"),
        (markup.points, -0.0214, "-2.1"),
        (markup.points, -0.0001, "+0.0"),
        (markup.p_value, 0.0123, "0.012"),
        (markup.p_value, 0.0009, "<0.001"),
        (markup.p_value, math.nan, "–"),
        (markup.count, 999, "999"),
        (markup.count, 999.7, "1.0 k"),
        (markup.count, 12_345, "12.3 k"),
        (markup.count, 999_960, "1.0 M"),
        (markup.count, 4_500_000, "4.5 M"),
        (markup.count, 2.5e12, "2.5 T"),
    ],
)
def test_numbers_are_written_alike(write, value, text):
    assert write(value) == text


def test_the_front_has_none_that_another_beats_in_both():
    rng = np.random.default_rng(0)
    points = [{"row": str(i), "cost": c, "score": {"mean": m}} for i, (c, m) in enumerate(rng.random((40, 2)))]
    for more in (False, True):
        sign = -1 if more else 1
        beaten = {
            a["row"]
            for a in points
            for b in points
            if sign * b["cost"] < sign * a["cost"] and b["score"]["mean"] > a["score"]["mean"]
        }
        assert set(pareto_front(points, "cost", more_is_better=more)) == {p["row"] for p in points} - beaten


@pytest.mark.parametrize("seed", range(20))
def test_names_in_a_plot_cover_neither_each_other_nor_a_mark(seed):
    rng = np.random.default_rng(seed)
    marks = [(float(x), float(y)) for x, y in rng.uniform((60, 40), (380, 250), (25, 2))]
    wanted = {f"strategy_{i}": marks[i] for i in range(8)}
    boxes = list(place_labels(wanted, marks, (44, 4, 396, 256)).values())
    assert len(boxes) >= 7
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 44
        assert right <= 396
        assert not any(left < x < right and top < y < bottom for x, y in marks)
        for other in boxes[:i]:
            assert left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom
