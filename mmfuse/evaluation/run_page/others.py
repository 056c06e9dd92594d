"""What a run's page says of numbers and of captions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmfuse.evaluation.run_page.folder import Scores
from mmfuse.metrics.captions.languages import count_words, words_of
from mmfuse.pages.markup import Content, cell, header, table, tag
from mmfuse.pages.plots import Path, Points, plot, plot_legend
from mmfuse.seeds import unit_hash

MOST_DOTS = 600
PARTS = 5


def number_sections(task: Scores) -> Iterator[tuple[str, Content]]:
    """Predicted against true, and how often the intervals hold it."""
    said = np.array([one["value"] for one in task.told], np.float64)
    true = task.target.astype(np.float64)
    order = sorted(range(len(said)), key=lambda i: unit_hash(0, f"dots:{task.ids[i]}"))[:MOST_DOTS]
    ends = float(min(said.min(), true.min())), float(max(said.max(), true.max()))
    log = bool(getattr(task.kind, "log", False))
    unit = f" ({task.kind.unit})" if getattr(task.kind, "unit", "") else ""
    dots = Points(said[order].tolist(), true[order].tolist(), "many", radius=2.2)
    shown = f" {len(order):,} of {len(said):,} rows are drawn." if len(order) < len(said) else ""
    chart = plot([dots], ends, ends, (f"predicted{unit}", f"true{unit}"),
                 f"True {task.name} against what was predicted, {len(order)} rows, {ends[0]:.4g} to {ends[1]:.4g}; on "
                 "the dotted line they are equal", diagonal=True, log=log)  # fmt: skip
    errors = true / said if log else true - said
    spread = np.quantile(errors, [0.05, 0.25, 0.5, 0.75, 0.95])
    rows = [tag("tr", tag("th", name, scope="row"), cell(f"{value:,.4g}"))
            for name, value in zip(("5 %", "25 %", "half", "75 %", "95 %"), spread, strict=True)]  # fmt: skip
    what = "true / predicted" if log else "true − predicted"
    quantiles = table([header("of the rows below", what)], [rows], "Errors", class_="small")
    yield (
        "Predicted and true",
        [
            tag("p", f"On the dotted line both are equal.{shown}", class_="note"),
            tag("div", tag("figure", chart), quantiles, class_="pair"),
        ],
    )
    if all(one.get("low") is not None for one in task.told):
        yield "Intervals of the predictions", _intervals(task, said, true)


def _intervals(task: Scores, said: np.ndarray, true: np.ndarray) -> Content:
    low, high = (np.array([one[end] for one in task.told]) for end in ("low", "high"))
    inside = (true >= low) & (true <= high)
    parts = np.array_split(np.argsort(said, kind="stable"), PARTS)
    rows = [
        tag("tr", tag("th", f"{said[part].min():,.4g} to {said[part].max():,.4g}", scope="row"), cell(f"{len(part):,}"),
            cell(f"{inside[part].mean():.0%}"), cell(f"{np.median((high - low)[part]):,.4g}"))
        for part in parts if len(part)
    ]  # fmt: skip
    note = (
        f"Each prediction has an interval that should hold the truth in 90 % of rows: it does in {inside.mean():.1%}."
    )
    head = header("predicted", "rows", "inside", "width (median)")
    return [tag("p", note, class_="note"), table([head], [rows], "Intervals by prediction", class_="small")]


def caption_sections(task: Scores) -> Iterator[tuple[str, Content]]:
    """How long captions are, and how much they repeat each other."""
    written = [one["caption"] for one in task.told]
    references = [reference for one in task.told for reference in one["target"]]
    lengths = {"of-best": ("written", written), "of-late": ("references", references)}
    counted = {style: [count_words(words_of(text)) for text in texts] for style, (_, texts) in lengths.items()}
    longest = max(1, int(np.quantile([n for of in counted.values() for n in of], 0.99)))
    paths = []
    for style, of in counted.items():
        shares = np.bincount(np.minimum(of, longest), minlength=longest + 1) / max(len(of), 1)
        paths.append(Path(lengths[style][0], list(range(longest + 1)), shares.tolist(), style))
    means = {style: float(np.mean(of)) for style, of in counted.items()}
    top = max(max(path.y) for path in paths)  # type: ignore[type-var]
    chart = plot(paths, (0, longest), (0, 1.05 * float(top or 1)), ("words of a caption", "share"),
                 f"Words a caption: {means['of-best']:.1f} written, {means['of-late']:.1f} in references",
                 write=(None, lambda v: f"{v:.0%}"))  # fmt: skip
    rows = [
        tag("tr", tag("th", name, scope="row"), cell(f"{len(texts):,}"), cell(f"{len(set(texts)):,}"),
            cell(f"{np.mean(counted[style]):.1f}"))
        for style, (name, texts) in lengths.items()
    ]  # fmt: skip
    head = header("captions", "number", "different ones", "words")
    legend = plot_legend([(style, name) for style, (name, _) in lengths.items()])
    yield (
        "How captions are written",
        tag("div", tag("figure", chart, legend), table([head], [rows], "Captions", class_="small"), class_="pair"),
    )


def number_wrongness(task: Scores) -> list[tuple[float, bool, str]]:
    """As `labels.wrongness`: the error on the scale of the task; right is what is nearer than half of the rows."""
    said = np.array([one["value"] for one in task.told], np.float64)
    scale = getattr(task.kind, "on_scale", lambda values: np.asarray(values, np.float64))
    away = np.abs(scale(said) - scale(task.target))
    half = float(np.median(away))
    unit = f" {task.kind.unit}" if getattr(task.kind, "unit", "") else ""
    return [
        (float(a) if a > half else float(a) - 1e6, bool(a <= half), f"said {s:,.4g}, true {t:,.4g}{unit}")
        for a, s, t in zip(away, said, task.target.tolist(), strict=True)
    ]


def caption_wrongness(task: Scores) -> list[tuple[float, bool, str]]:
    """As `labels.wrongness`, by the overlap of words with the nearest reference."""
    found = []
    for one in task.told:
        own = set(words_of(one["caption"]))
        overlap = max((len(own & words) / max(len(own | words), 1) for words in map(set, map(words_of, one["target"]))),
                      default=0.0)  # fmt: skip
        words = f"written: {one['caption']} — reference: {one['target'][0]}"
        found.append((-overlap, overlap > 0.5, words))
    return found
