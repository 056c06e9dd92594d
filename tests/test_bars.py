"""Bars are drawn in place on a terminal and in a notebook with widgets; elsewhere nothing is."""

import io

import pytest
from rich.console import Console

from mmfuse import bars
from mmfuse.training.progress import Progress


@pytest.mark.parametrize(
    ("options", "widgets", "drawn"),
    [
        ({"force_terminal": True}, False, True),
        ({"force_terminal": False}, True, False),
        ({"force_jupyter": True, "force_terminal": False}, True, True),
        ({"force_jupyter": True, "force_terminal": False}, False, False),
    ],
)
def test_where_a_bar_is_drawn(options, widgets, drawn, monkeypatch):
    monkeypatch.setattr(bars, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    assert bars.can_draw(Console(file=io.StringIO(), **options)) is drawn


def test_without_a_bar_a_training_tells_a_line_an_evaluation_and_no_more(capsys):
    with Progress(1000, 0, True) as progress:
        for step in range(1000):
            progress.advance(0.5, 8)
            if step % 250 == 249:
                progress.validated(0.5, step // 250, False)
    assert progress.bar is None
    assert len(capsys.readouterr().err.splitlines()) == 4
