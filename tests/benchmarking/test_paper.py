"""What of a benchmark goes into a paper: LaTeX tables and the methods paragraph."""

import re

import pytest
from fake import fake_summary

from mmfuse.benchmarking.latex import escape, latex_tables
from mmfuse.benchmarking.methods import methods, methods_text, reference_of
from mmfuse.fusion import FUSIONS

HOSTILE = r"a_b & 50% $x^2$ #1 {\input{/etc/passwd}} ~ <i> \end{table}"


@pytest.fixture
def summary():
    found = fake_summary()
    for label, row in found["rows"].items():
        row["reference"] = f"{label} et al. 2020, arXiv 2001.00000."
    return found


def commands(text):
    """The commands of a LaTeX text; an escaped backslash is none."""
    return set(re.findall(r"\\([a-zA-Z]+)", text))


def is_balanced(text):
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    return depth == 0


def test_the_tables_are_latex(summary):
    text = latex_tables(summary)
    assert is_balanced(text)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    for table in text.split(r"\begin{table}")[1:]:
        columns = re.search(r"\\begin{tabular}{(\w+)}", table)[1]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(summary["rows"])
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
        order = re.findall(r"\\(toprule|midrule|bottomrule)", table)
        assert order == ["toprule", "midrule", "midrule", "bottomrule"]
    assert r"text\_only & unimodal" in text
    assert r"\textsuperscript{\dag}" in text
    assert "−" not in text
    assert re.search(r"\$-\$\d", text)


def test_names_of_anyone_are_no_latex(summary):
    summary["tasks"] = {HOSTILE: summary["tasks"]["findings"]}
    summary["failed"] = [{"row": HOSTILE, "cell": "x", "reason": HOSTILE}]
    text = latex_tables(summary)
    known = commands(latex_tables(fake_summary()))
    assert commands(text) - known == {"textbackslash", "textasciitilde", "textasciicircum", "textgreater"}
    assert is_balanced(text)
    assert escape("a\nb\\\\[1cm]") == r"a b\textbackslash{}\textbackslash{}[1cm]"


def test_methods_are_of_the_summary(summary):
    text = methods_text(summary)
    references = methods(summary)[1]
    assert all(part in text for part in ("3 seeds", "10,000 bootstrap resamples", "1,840 test rows in 612 groups"))
    task = summary["tasks"]["findings"]
    assert f"declared was {task['references']['declared']} against {task['references']['best_unimodal']}" in text
    assert "film: film et al. 2020, arXiv 2001.00000." in references
    assert "fold" not in text
    summary |= {"folds": 5, "seeds": 7, "tuning_trials": 4, "matching": "macs", "resamples": 123}
    summary["provenance"]["config"] = {"training": {"epochs": 9, "learning_rate": 0.002}}
    summary["rows"]["film"]["matched"] = "nearest: 0.40 of the target"
    text = " ".join(methods(summary)[0])
    for part in (
        "7 seeds on each of 5 folds",
        "with at most 9 epochs and a learning rate of 0.002",
        "of 4 trials",
        "matched by macs to concat, but for film",
        "123 bootstrap",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["film", "late", "perceiver", "mixture_of_experts"])
def test_references_are_those_of_the_docstrings(name):
    found = reference_of(FUSIONS.get(name))
    assert re.search(r"(arXiv \d{4}\.\d{4,5}|doi \S+)", found)
    assert "Differs" not in found
    assert "\n" not in found


def test_a_strategy_without_a_reference_has_none():
    assert reference_of(type("Plain", (), {"__doc__": "Says nothing."})) == ""
    assert reference_of(type("Plain", (), {"__doc__": "One.\n\nReference: A,\n  B.\nDiffers: so."})) == "A, B."
