"""Whatever tasks, labels and data sets are called, a card and a table say just that."""

from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt

from mmfuse.benchmarking.appendix import appendix
from mmfuse.evaluation.evaluate import format_report
from mmfuse.evaluation.markdown import code, plain, prose
from mmfuse.training.card import model_card

EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (EVIL, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b\n\n# c", "a \\| b # c"),
        ("[x](javascript:alert(1))", "\\[x\\]\\(javascript:alert(1))"),
        ("`code` *bold* \\", "\\`code\\` \\*bold\\* \\\\"),
        ("R&D &lt;b&gt;", "R&D &amp;lt;b&amp;gt;"),
        ("pleural_effusion, left", "pleural_effusion, left"),
        ("a\x1b[2Jb", "a\\\\x1b\\[2Jb"),
        (3, "3"),
    ],
)
def test_a_name_is_text(text, written):
    assert plain(text) == written


def test_code_is_left_where_it_could_be_ended():
    assert code("bert-base_uncased") == "`bert-base_uncased`"
    assert code("a`<b>`") == "a\\`&lt;b&gt;\\`"
    assert code("a\nb") == "`a b`"


def test_prose_keeps_paragraphs_and_links_to_pages_only():
    text = "One.\n\n- [paper](https://x.org/y)\n- [click](javascript:alert(1))\n![p](http://t.org/p.png)\n[r]: data:x\n"
    assert prose(text + EVIL) == (
        "One.\n\n- [paper](https://x.org/y)\n- [click&#93;(javascript:alert(1))\n!&#91;p](http://t.org/p.png)\n"
        "[r&#93;: data:x\n&lt;script>alert(1)&lt;/script>"
    )


@pytest.mark.parametrize(
    "text",
    [
        "[a\\](javascript:alert(1))",
        "> [a]: javascript:alert(1)\n\n[a]",
        "- [a\\]: javascript:alert(1)\n\n[a\\]",
        "\\![a](https://tracker.example/x)",
        "![a][b]",
        "[a](<javascript:alert(1)>)",
        "[a](https://x.org 'onclick')",
        "[![a](https://x.org)](data:text/html,x)",
    ],
)
def test_no_backslash_of_the_text_makes_markup_of_it(text):
    blocks = MarkdownIt("commonmark").parse(prose(text))  # typer brings it
    tokens = [token for block in blocks for token in [block, *(block.children or ())]]
    links = [token.attrGet("href") for token in tokens if token.type == "link_open"]
    assert all(str(link).startswith("https://") for link in links)
    assert not [token for token in tokens if token.type in ("image", "html_inline", "html_block")]


@pytest.fixture
def report():
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    scores = {"n": 3, "groups": 2, "metrics": {"f1": value}}
    label = {"positives": 2, "auroc": value, "average_precision": value, "f1": value}
    return {"split": "test", "tasks": {EVIL: {**scores, "per_label": {f"{EVIL}|": label}}}, "missing": {}}


def test_a_cards_words_are_words(report):
    tower = SimpleNamespace(name=f"x`{EVIL}", frozen=False, first_trained=0, pretrained=False, adapter={"name": EVIL})
    model = SimpleNamespace(
        text_encoder=None,
        image_encoder=SimpleNamespace(),
        fusion_config={"name": EVIL},
        text_sections=[],
        task_config={EVIL: {"type": "multilabel", "labels": [f"{EVIL}|", "b"]}},
        accepts_missing=[],
    )
    task = SimpleNamespace(label_origin="mined_from_text")
    manifest = SimpleNamespace(
        tasks={EVIL: task}, name=EVIL, version=EVIL, sha256="0" * 64, about=f"It has\n\n{EVIL}", licence=EVIL
    )
    table = SimpleNamespace(manifest=manifest, counts=lambda: {"train": 1}, labels={EVIL: []})
    training = SimpleNamespace(mixed_precision=None)
    config = SimpleNamespace(
        name=f"{EVIL}\n---", text_encoder=tower, image_encoder=tower, training=training, init_from=None
    )
    card = model_card(model, table, config, report)  # type: ignore[arg-type]
    assert "<" not in card
    assert card.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 11
    assert "\n# &lt;script&gt;alert(1)&lt;/script&gt; ---\n" in card
    assert "\n| &lt;script&gt;alert(1)&lt;/script&gt;\\| | 2 |" in card


def test_a_terminal_shows_names_as_they_are(report):
    assert f"| {EVIL}| | 2 |" in format_report(report)
    report["tasks"][EVIL]["per_label"]["\x1b[2J"] = report["tasks"][EVIL]["per_label"].pop(f"{EVIL}|")
    assert r"| \x1b[2J | 2 |" in format_report(report)
    assert "<" not in format_report(report, plain)


def test_a_benchmarks_table_has_the_same_words():
    assert appendix.__globals__["plain"] is plain
