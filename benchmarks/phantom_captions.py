"""Captions, labels and answers on the SYNTHETIC phantom, against what can be known of it.

    python benchmarks/phantom_captions.py --work DIR [--only captions labels both answer written_answer] [--seeds 1]

Trains `configs/phantom_captions.yaml` with both tasks (`both`) and with each alone (`captions`, `labels`), and
`configs/phantom_questions.yaml` as a class (`answer`) and as a text (`written_answer`); goes on where it was cut off.
Then, on fresh studies that no split holds (seed 1), prints slot accuracy beside its ceiling, AUROC, and the share of
right answers. `--figure FILE` draws the first 20 fresh studies with what was written of them.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from pathlib import Path

import mmfuse
from mmfuse.config import load_config
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_film import render
from mmfuse.data.synthetic.phantom_findings import (
    FINDINGS,
    read_findings,
    slot_accuracy,
    slot_ceiling,
    true_findings,
    write_language,
)
from mmfuse.data.synthetic.phantom_study import make_study

CONFIGS = Path(__file__).parent.parent / "configs"
RUNS = {
    "both": ("phantom_captions", []),
    "captions": ("phantom_captions", ["data.tasks=[report]"]),
    "labels": ("phantom_captions", ["data.tasks=[findings]"]),
    "answer": ("phantom_questions", []),
    "written_answer": ("phantom_questions", ["data.tasks=[written_answer]"]),
}
FRESH_SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=6000)
    parser.add_argument("--fresh", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--figure", type=Path, help="PNG of 20 fresh studies and their captions")
    parser.add_argument("overrides", nargs="*", help="key=value for all of them")
    args = parser.parse_args()
    train, fresh = (
        phantom(args.work / f"studies_{seed}", n, seed) for seed, n in ((0, args.studies), (FRESH_SEED, args.fresh))
    )
    for name in args.only:
        for seed in range(args.seeds):
            line = run(args, name, seed, train, fresh)
            print(json.dumps(line), flush=True)
    if args.figure:
        draw(args.work / "both-0" / "fresh" / "predictions.jsonl", args.figure)


def phantom(folder: Path, studies: int, seed: int) -> Path:
    if not (folder / "questions.csv").is_file():
        write_phantom(folder, studies, seed)
        write_language(folder, seed)
    return folder


def run(args: argparse.Namespace, name: str, seed: int, train: Path, fresh: Path) -> dict:
    config_name, options = RUNS[name]
    folder = args.work / f"{name}-{seed}"
    table = "captions" if config_name == "phantom_captions" else "questions"
    overrides = [*options, *args.overrides, f"seed={seed}", f"output_dir={folder}"]
    config = load_config(CONFIGS / f"{config_name}.yaml", [*overrides, f"data.manifest={train / f'{table}.yaml'}"])
    minutes = folder / "minutes"
    if not minutes.is_file():
        start = time.perf_counter()
        mmfuse.train(config)
        minutes.write_text(f"{(time.perf_counter() - start) / 60:.1f}\n")
    report = evaluate_all(folder / "model", fresh / f"{table}.yaml", folder / "fresh")
    line: dict = {"run": name, "seed": seed, "minutes": float(minutes.read_text())}
    said = [json.loads(text) for text in (folder / "fresh" / "predictions.jsonl").read_text().splitlines()]
    if "report" in report["tasks"]:
        studies = [make_study(FRESH_SEED, int(row["id"].rsplit("-", 1)[1])) for row in said]
        line["slots"] = slot_accuracy([row["tasks"]["report"]["caption"] for row in said], studies)
        line["ceiling"] = slot_ceiling()
        line["share_of_ceiling"] = line["slots"]["all"] / line["ceiling"]["all"]
        metrics = report["tasks"]["report"]["metrics"]
        line["metrics"] = {key: metrics[key]["value"] for key in ("bleu4", "rouge_l", "cider_d")}
    if "findings" in report["tasks"]:
        line["auroc"] = {
            label: found["auroc"]["value"] for label, found in report["tasks"]["findings"]["per_label"].items()
        }
        line["auroc_macro"] = report["tasks"]["findings"]["metrics"]["auroc_macro"]["value"]
    if table == "questions":
        (task,) = report["tasks"]
        answers = [row["tasks"][task] for row in said]
        right = [a["caption"] == a["target"][0] if "caption" in a else a["label"] == a["target"] for a in answers]
        line["right_answers"] = sum(right) / len(right)
    return line


def evaluate_all(model: Path, manifest: Path, out: Path) -> dict:
    """Every fresh study, whatever split its table says."""
    text = manifest.read_text().replace("splits: {column: split}", "splits: {ratios: {test: 1.0}}")
    everything = manifest.with_name(f"{manifest.stem}_all.yaml")
    everything.write_text(text)
    return mmfuse.evaluate(model, everything, out=out)


def draw(predictions: Path, figure_path: Path, studies: int = 20) -> None:
    """The first studies, not picked: the film, the findings that are wrong in red, the caption beneath."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [json.loads(text) for text in predictions.read_text().splitlines()]
    rows = sorted(rows, key=lambda row: row["id"])[:studies]
    figure = Figure(figsize=(15, 17), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, row in zip(figure.subplots(4, 5).ravel(), rows, strict=True):
        study = make_study(FRESH_SEED, int(row["id"].rsplit("-", 1)[1]))
        caption = row["tasks"]["report"]["caption"]
        panel.imshow(render(study), cmap="gray", vmin=0, vmax=255)
        panel.set(xticks=[], yticks=[])
        said, true = read_findings(caption), true_findings(study)
        wrong = [name for name in FINDINGS if name not in said or said[name] != true[name]]
        shown_wrong = [name for name in FINDINGS if study.shown[name] != study.truth[name]]
        verdict = f"wrong: {', '.join(wrong)}" if wrong else "all five findings right"
        panel.set_title(verdict, fontsize=9, color="#b00020" if wrong else "#1b6e3c")
        words = textwrap.fill(caption, 42)
        if shown_wrong:
            words += "\n" + textwrap.fill(f"(the film does not show the truth: {', '.join(shown_wrong)})", 42)
        panel.set_xlabel(words, fontsize=8, loc="left")
    figure.suptitle("SYNTHETIC phantoms, the first 20 fresh studies, and what the model wrote of them", fontsize=12)
    figure.savefig(figure_path, dpi=80, format="png")


if __name__ == "__main__":
    main()
