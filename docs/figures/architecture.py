"""Draw docs/figures/architecture.png: python docs/figures/architecture.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

INK, QUIET, RULE = "#23272e", "#5b6370", "#9aa3af"
TEXT, IMAGE, FUSED, PLAIN = "#3b6fb6", "#c7651a", "#2e8b57", "#4a4f57"
BOXES = (  # left, bottom, width, height, colour, title, what is in it
    (0.0, 2.35, 2.0, 1.0, IMAGE, "images", "PNG, JPEG, DICOM, ...\n0, 1 or more per sample"),
    (0.0, 0.45, 2.0, 1.0, TEXT, "text", "table, TXT, XML, SR, ...\nor a section of a report"),
    (2.75, 2.35, 2.3, 1.0, IMAGE, "image encoder", "timm: ResNet, ViT, ...\nfine-tuned, or frozen"),
    (2.75, 0.45, 2.3, 1.0, TEXT, "text encoder", "transformers: BERT, ...\nfine-tuned, or frozen"),
    (6.1, 1.4, 2.0, 1.0, FUSED, "fusion", "one of 21, or your own\nin one file"),
    (9.15, 2.55, 2.3, 0.8, PLAIN, "classification", "probabilities, one class"),
    (9.15, 1.5, 2.3, 0.8, PLAIN, "multi-label", "probabilities, thresholds"),
    (9.15, 0.45, 2.3, 0.8, PLAIN, "captioning", "a decoder writes a text"),
)
ARROWS = (  # from, to, and the name of what flows
    ((2.0, 2.85), (2.75, 2.85), ""),
    ((2.0, 0.95), (2.75, 0.95), ""),
    ((5.05, 2.85), (6.1, 2.15), "Features"),
    ((5.05, 0.95), (6.1, 1.65), "Features"),
    ((8.1, 2.15), (9.15, 2.95), ""),
    ((8.1, 1.9), (9.15, 1.9), "Features"),
    ((8.1, 1.65), (9.15, 0.85), ""),
)


def main() -> None:
    """Write the PNG beside this file."""
    figure, axes = plt.subplots(figsize=(11.6, 3.9), dpi=120)
    for left, bottom, width, height, colour, title, content in BOXES:
        shape = FancyBboxPatch(
            (left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.1", fc=colour + "18", ec=colour, lw=1.6
        )
        axes.add_patch(shape)
        middle = left + width / 2
        axes.text(middle, bottom + height - 0.22, title, ha="center", va="center", color=INK, size=12, weight="bold")
        lines = 0.27 if height < 1 else 0.36
        axes.text(middle, bottom + lines, content, ha="center", va="center", color=QUIET, size=8.5, linespacing=1.35)
    for start, end, name in ARROWS:
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": RULE, "lw": 1.6, "shrinkA": 2, "shrinkB": 2}
        )
        if name:
            x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
            x, y = (x + 0.28, y + (0.2 if start[1] >= end[1] else -0.2)) if start[1] != end[1] else (x - 0.02, y + 0.14)
            axes.text(x, y, name, ha="center", va="center", color=QUIET, size=8.5, style="italic")
    headings = ((1.0, "sample"), (3.9, "encoders"), (7.1, "fusion"), (10.3, "heads, one per task"))
    for x, heading in headings:
        axes.text(x, 3.72, heading, ha="center", va="center", color=QUIET, size=10)
    note = "Trained end to end with one loss. A missing image or text becomes a learned token."
    axes.text(5.72, 0.02, note, ha="center", va="center", color=QUIET, size=9)
    axes.set_xlim(-0.1, 11.55)
    axes.set_ylim(-0.15, 3.9)
    axes.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), bbox_inches="tight", facecolor="white", pad_inches=0.08)


if __name__ == "__main__":
    main()
