import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from PIL import Image

from mmfuse.evaluation import plots
from mmfuse.evaluation.plots import plot_confusion, plot_learning_curve, plot_residuals

pytestmark = pytest.mark.heavy


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at their texts and lines."""
    figures = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def records():
    lines = []
    for step in range(10, 401, 10):
        lines.append({"step": step, "epoch": step / 100, "loss": float(np.exp(-step / 90)), "learning_rate": 1e-4})
        if step % 100 == 0:
            metrics = {"findings/auroc_macro": 0.9 - abs(step - 300) / 1000, "findings/nll": abs(step - 200) / 100}
            lines.append({"step": step, "validation_loss": float(np.exp(-step / 90)) + 0.1, "validation": metrics})
    return lines


@pytest.mark.parametrize("num_labels", [2, 14, 30])
def test_confusion_is_a_picture_with_everything_on_it(tmp_path, drawn, num_labels):
    confusion = np.random.default_rng(0).integers(1, 2000, (num_labels, num_labels))
    confusion[0] = 0  # a class that never occurs
    labels = [f"label {i} " + "with a long name " * (i % 3) for i in range(num_labels)]
    plot_confusion(confusion.tolist(), labels, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert max(image.size) < 2500
    axes = drawn[0].axes[0]
    assert f"{np.trace(confusion) / confusion.sum():.1%}" in axes.get_title()
    counts = [text.get_text() for text in axes.texts]
    assert counts == ([f"{count:,}" for count in confusion.ravel()] if num_labels <= 15 else [])
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[1:].sum(axis=1), 1)
    assert (shares[0] == 0).all()
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(set(names)) == num_labels
    assert max(map(len, names)) <= plots.LONGEST_LABEL


def test_odd_labels_and_no_rows_are_drawn(tmp_path):
    plot_confusion(np.zeros((2, 2), int), ["costs $5_$", "漢字"], str(tmp_path / "confusion.png"))
    with pytest.raises(ValueError, match=r"must be \(3, 3\)"):
        plot_confusion(np.eye(2), ["a", "b", "c"], tmp_path / "wrong.png")


@pytest.mark.parametrize(
    ("monitor", "best"),
    [
        ("findings/auroc_macro", "0.9 at step 300"),
        ("findings/nll", "0 at step 200"),
        ("validation_loss", "at step 400"),
    ],
)
def test_learning_curve_marks_the_best_step(tmp_path, drawn, monitor, best):
    plot_learning_curve(records(), tmp_path / "curve.png", monitor)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
    assert best in drawn[0].get_suptitle()
    upper, lower = drawn[0].axes
    assert upper.lines[0].get_xdata().tolist() == list(range(10, 401, 10))
    assert upper.lines[2].get_xdata().tolist() == [100, 200, 300, 400]
    assert len(lower.lines[0].get_xdata()) == 4


def test_learning_curve_takes_what_there_is(tmp_path, drawn):
    path = tmp_path / "curve.png"
    plot_learning_curve([], path, "findings/auroc_macro")
    plot_learning_curve(records()[:1], path, "findings/auroc_macro")
    odd = [
        {"step": 1, "loss": float("nan")},
        {"step": 2, "validation_loss": None, "validation": {"findings/nll": None}},
    ]
    plot_learning_curve(odd, path, "findings/nll")
    assert all("not recorded" in figure.get_suptitle() for figure in drawn)
    plot_learning_curve([*records(), {"step": 10, "loss": 7.0}], path, "findings/nll")
    assert drawn[-1].axes[0].lines[0].get_ydata()[0] == 7  # the later line of a step counts


def test_smoothing_ignores_a_spike_and_keeps_a_level():
    values = np.ones(200)
    values[100] = 50
    np.testing.assert_array_equal(plots._smoothed(values), np.ones(200))
    np.testing.assert_allclose(plots._smoothed(np.linspace(5, 1, 200))[5:-5], np.linspace(5, 1, 200)[5:-5])


def test_pyplot_knows_no_figure(tmp_path):
    plot_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path / "confusion.png")
    plot_learning_curve(records(), tmp_path / "curve.png", "findings/nll")
    assert not Gcf.figs


@pytest.mark.parametrize(("rows", "log"), [(1, False), (200, True), (4000, False)])
def test_residuals_are_a_picture_with_what_the_intervals_hold(tmp_path, drawn, rows, log):
    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(5, 1, rows)) if log else rng.normal(50, 9, rows)
    said = true * 1.1 if log else true + 2
    ends = (said / 1.2, said * 1.2) if log else (said - 3, said + 3)
    plot_residuals(said, true, tmp_path / "r.png", "price (INR)", ends, log)
    left, right = drawn[0].axes
    assert left.get_legend().get_texts()[1].get_text() == "interval of the predictions: 100.0% inside"
    assert (left.get_ylabel(), right.get_ylabel()) == (
        "true price (INR)",
        "true / predicted" if log else "true - predicted",
    )
    shown = right.collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(shown, 1 / 1.1 if log else -2)
    with Image.open(tmp_path / "r.png") as image:
        assert image.size[0] > 1000
    with pytest.raises(ValueError, match=r"both must be \(N,\)"):
        plot_residuals(said, true[:0], tmp_path / "r.png", "price")


def test_the_best_of_an_error_is_the_lowest(tmp_path, drawn):
    lines = [
        {"step": s, "validation_loss": 1.0, "validation": {"level/rmse": v}} for s, v in ((1, 9.0), (2, 5.0), (3, 7.0))
    ]
    plot_learning_curve(lines, tmp_path / "c.png", "level/rmse", less=True)
    assert drawn[0].get_suptitle() == "best level/rmse: 5 at step 2"
