"""Known answers: train on SYNTHETIC phantoms, and compare each label's AUROC on fresh studies with its Bayes optimum.

    python benchmarks/phantom.py --work DIR [--strategies cross_attention text_only image_only late] [key=value ...]

Trains configs/phantom.yaml with each strategy on 6,000 studies, scores 4,000 fresh ones, and prints AUROC, standard
error (Hanley and McNeil 1982) and the exact Bayes optimum of what the strategy sees. A finished strategy is not trained
again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import yaml

STRATEGIES = ("cross_attention", "text_only", "image_only", "late")
SEES = {"text_only": "text", "image_only": "image"}
CONFIG = Path(__file__).parent.parent / "configs" / "phantom.yaml"


def standard_error(auroc: float, positives: int, negatives: int) -> float:
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = (auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)) / (
        positives * negatives
    )
    return spread**0.5


def make_data(work: Path, studies: int, fresh: int) -> tuple[Path, Path]:
    from mmfuse.data.synthetic.phantom import write_phantom

    train, test = work / "train" / "manifest.yaml", work / "fresh" / "manifest.yaml"
    if not train.exists():
        write_phantom(train.parent, studies, seed=0)
    if not test.exists():
        write_phantom(test.parent, fresh, seed=1)
    manifest = yaml.safe_load(test.read_text())
    manifest["splits"] = {"ratios": {"test": 1.0}}
    whole = test.with_name("all_test.yaml")
    whole.write_text(yaml.safe_dump(manifest))
    return train, whole


def run_strategy(name: str, work: Path, train: Path, fresh: Path, overrides: list[str]) -> dict:
    import mmfuse

    done = work / f"{name}.json"
    if done.exists():
        return json.loads(done.read_text())
    start = time.perf_counter()
    config = mmfuse.load_config(
        CONFIG, [f"data.manifest={train}", f"output_dir={work / name}", "training.trackers=[]", *overrides]
    )
    config.fusion = {**config.fusion, "name": name}
    run = mmfuse.train(config)
    seconds = time.perf_counter() - start
    report = mmfuse.evaluate(run.model_dir, fresh, resamples=0)
    found = {"seconds": seconds, "steps": run.steps, "per_label": report["tasks"]["findings"]["per_label"]}
    done.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--studies", type=int, default=6000)
    parser.add_argument("--fresh", type=int, default=4000)
    parser.add_argument("overrides", nargs="*", default=[])
    args = parser.parse_args()
    from mmfuse.data.synthetic.phantom_study import bayes_auroc

    train, fresh = make_data(args.work, args.studies, args.fresh)
    bayes = bayes_auroc()
    for name in args.strategies:
        found = run_strategy(name, args.work, train, fresh, args.overrides)
        print(f"\n### {name}: {found['seconds'] / 60:.1f} minutes, {found['steps']} steps\n", flush=True)
        print("| label | AUROC | SE | Bayes of what it sees | Bayes of both | difference |\n|---|---|---|---|---|---|")
        for label, scores in found["per_label"].items():
            auroc = scores["auroc"]["value"]
            own = bayes[label][SEES.get(name, "both")]
            error = standard_error(auroc, scores["positives"], scores["negatives"])
            print(
                f"| {label} | {auroc:.3f} | {error:.3f} | {own:.3f} | {bayes[label]['both']:.3f} | {auroc - own:+.3f} |"
            )


if __name__ == "__main__":
    main()
