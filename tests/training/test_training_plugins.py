"""The plug-ins of docs/extend.md that change training, as a newcomer has them: a file and a config."""

import pytest
from plugin_runs import STEPS, assert_works, plugin_of, tiny_run


@pytest.mark.heavy
def test_an_objective(tmp_path):
    plugin = plugin_of("An objective", tmp_path)
    chosen = {"objectives": [{"name": "alignment", "width": 4, "weight": 0.5}]}
    lines = assert_works(tiny_run(tmp_path, plugin, training=chosen), "alignment", "objectives")
    assert len(lines) == STEPS
    for line in lines:
        own = line["losses"]
        assert line["loss"] == pytest.approx(own["findings"] + 0.5 * own["objectives.alignment"], rel=1e-5)


@pytest.mark.heavy
def test_a_method(tmp_path):
    plugin = plugin_of("A method", tmp_path)
    chosen = {"method": {"name": "gradient_noise", "scale": 0.1}}
    assert len(assert_works(tiny_run(tmp_path, plugin, training=chosen), "gradient_noise", "methods")) == STEPS


@pytest.mark.heavy
def test_an_order(tmp_path):
    plugin = plugin_of("An order", tmp_path)
    lines = assert_works(
        tiny_run(tmp_path, plugin, training={"order": {"name": "shuffled", "share": 0.8}}), "shuffled", "orders"
    )
    assert [line["samples"] for line in lines] == [8, 8, 8, 6, 8, 8, 8]  # 30 of 38 rows


@pytest.mark.heavy
def test_built_in_ones_together(tmp_path):
    """fgm, balanced, learned weights of two tasks, and a momentum, in one run."""
    (tmp_path / "none.py").write_text("")
    tasks = {
        "findings": {"type": "multilabel", "column": "findings", "separator": ";", "empty": "negative"},
        "sex": {"type": "classification", "column": "sex"},
    }
    training = {
        "method": {"name": "fgm", "epsilon": {"text": 0.5, "image": 2.0}},
        "order": {"name": "balanced", "by": "sex"},
        "objectives": ["uncertainty"],
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "learning_rate": 0.1,
    }
    values = tiny_run(tmp_path, tmp_path / "none.py", manifest={"tasks": tasks}, training=training)
    lines = assert_works(values, "fgm", "methods")
    assert all(line["loss"] > sum(line["losses"].values()) for line in lines)  # there is the second pass
