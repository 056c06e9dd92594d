"""Whether this working tree computes what another commit computes, to the last bit: six small runs of both sides.

    python benchmarks/equality.py --base COMMIT --work DIR [--only captions shards] [--allow benchmark/results=1e-7]

COMMIT is checked out in a git worktree below DIR. Both sides run side by side on one thread each, with this Python, on
SYNTHETIC phantoms that each side draws itself. Every file that a run leaves is compared: losses and scores without
times, weights tensor by tensor, the rest byte by byte. One line per run and artefact; exit code 1 where one differs.
`--allow RUN/ARTEFACT=RELATIVE` is for where the order of a sum was changed: its numbers may be so far apart.
`--renamed OLD=NEW` is for a tensor of checkpoints that has another name now. Keys that only the working tree writes
into JSON and YAML are told as new, and are no difference.
Finished runs stay in DIR, and are made again only where that side's code, or this script, has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from same_files import ARTEFACTS, MEASURED, Finding, compare_folders

ROOT = Path(__file__).resolve().parent.parent
STUDIES = 160
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {"name": "vit_tiny_patch16_224", "options": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
RESNET = {"name": "resnet10t", "options": {"channels": [8, 16, 16, 16]}}
DROPOUT = {"modality_dropout": {"text": 0.2, "image": 0.2}}
AUGMENTATION = {"image": "radiograph", "flip": "swap", "text": {"mask_tokens": 0.1, "shuffle_clauses": 0.5}}
STRATEGIES = ("late", "concat", "gated", "low_rank_tensor", "cross_attention")


@dataclass(frozen=True)
class Side:
    """One of the two: where its code is, and the folder that its runs are made in."""

    name: str
    code: Path
    folder: Path

    def mmfuse(self, *words: str, launcher: tuple[str, ...] = ()) -> None:
        """Run a command line in the folder, so that all paths are relative; what it says goes to `log.txt`."""
        environment = {**os.environ, "PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"MMFUSE_CACHE": "cache", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *launcher, "-m", "mmfuse.cli", *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"$ mmfuse {' '.join(words)}\n{done.stdout}{done.stderr}")
        if done.returncode:
            sys.exit(f"{self.name}: mmfuse {' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")

    def config(self, run: str, **changes: Any) -> str:
        """Write `RUN.yaml`; nested keys are merged with those of a model of seconds."""
        training = {"epochs": 2, "batch_size": 16, "learning_rate": 0.003, "patience": None, "trackers": []}
        values: dict[str, Any] = {
            "name": run,
            "output_dir": f"{run}/run",
            "data": {"manifest": "data/set/manifest.yaml", "num_workers": 1},
            "text_encoder": {"name": "bert", "pretrained": False, "options": BERT, "max_length": 48},
            "image_encoder": {"pretrained": False, "size": [32, 32], **VIT},
            "fusion": {"name": "cross_attention", "out_dim": 16},
            "training": training,
        }
        for key, value in changes.items():
            values[key] = values[key] | value if isinstance(values.get(key), dict) and value else value
        kept = {key: value for key, value in values.items() if value is not None}
        (self.folder / f"{run}.yaml").write_text(yaml.safe_dump(kept))
        return f"{run}.yaml"


def make_data(side: Side) -> None:
    """The phantom, its captions, and a folder of pairs, two of them broken."""
    side.mmfuse("data", "phantom", "data/set", "--studies", str(STUDIES))
    side.mmfuse("data", "phantom", "data/pairs", "--pairs", "--studies", "40", "--seed", "3")
    images = sorted((side.folder / "data" / "pairs").glob("*.png"))
    images[4].write_bytes(b"no picture")
    images[9].unlink()
    for path in (side.folder / "data" / "set").glob("*.yaml"):  # the text about it names a file, which may move
        told = {"about": "SYNTHETIC chest phantoms", "subgroups": []}  # older commits say nothing of subgroups
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **told}))
    manifest = yaml.safe_load((side.folder / "data" / "set" / "manifest.yaml").read_text())
    manifest["tasks"]["sex"] = {"type": "classification", "column": "sex", "label_origin": "synthetic"}
    (side.folder / "data" / "set" / "both.yaml").write_text(yaml.safe_dump(manifest))
    for path in (side.folder / "data").rglob("*"):  # shards know their source by the times of its files
        os.utime(path, (0, 0))


def run_multitask(side: Side) -> None:
    """Classes and labels, one image tower with batch norm, all kinds of dropout and augmentation, learned weights."""
    training = {
        **DROPOUT,
        "augmentation": AUGMENTATION,
        "accumulation": 2,
        "task_weights": "uncertainty",
        "patience": 2,
    }
    config = side.config(
        "multitask",
        data={"manifest": "data/set/both.yaml"},
        image_encoder=RESNET,
        fusion={"name": "gated", "dropout": 0.2},
        tasks={"findings": {"class_weights": "balanced"}},
        training={**training, "epochs": 3, "checkpoint_every": 3},
    )
    side.mmfuse("train", config)
    side.mmfuse("evaluate", "multitask/run/model", "data/set/both.yaml", "--out", "multitask/test")
    for out in ("predictions.jsonl", "predictions_table.csv"):
        side.mmfuse("predict", "multitask/run/model", "data/pairs", "--out", f"multitask/{out}")


def run_captions(side: Side) -> None:
    """A caption beside labels; greedy in the evaluation, by beams in the prediction."""
    decoder = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 24, "label_smoothing": 0.1}
    config = side.config(
        "captions",
        data={"manifest": "data/set/captions.yaml"},
        tasks={"report": {"decoder": {**decoder, "scheduled_sampling": 0.2}}},
        training={"epochs": 4},
    )
    side.mmfuse("train", config)
    side.mmfuse("evaluate", "captions/run/model", "data/set/captions.yaml", "--out", "captions/test")
    texts = ("--captions-dir", "captions/texts", "--missing", "allow", "--generation", "num_beams=2")
    side.mmfuse("predict", "captions/run/model", "data/pairs", "--out", "captions/predictions.jsonl", *texts)


def run_frozen(side: Side) -> None:
    """Both towers frozen, so that their features are computed once, kept, and read again."""
    frozen = {"frozen": True}
    config = side.config("frozen", text_encoder=frozen, image_encoder=frozen, training=DROPOUT, cache={"dir": "cache"})
    side.mmfuse("train", config)
    side.mmfuse("evaluate", "frozen/run/model", "data/set/manifest.yaml", "--cache", "--out", "frozen/test")
    table = ("data/set/data.csv", "--out", "frozen/predictions.parquet")
    side.mmfuse("predict", "frozen/run/model", *table, "--abstain", "0.6")


def run_shards(side: Side) -> None:
    """Shards written, streamed by two workers, and predicted from."""
    side.mmfuse("data", "shard", "data/set/manifest.yaml", "--out", "shards/set", "--size", "64KB")
    data = {"manifest": "shards/set/manifest.yaml", "num_workers": 2, "shuffle_buffer": 16, "lanes": 2}
    side.mmfuse("train", side.config("shards", data=data, fusion={"name": "concat"}))
    side.mmfuse("evaluate", "shards/run/model", "shards/set/manifest.yaml", "--out", "shards/test")
    side.mmfuse("predict", "shards/run/model", "shards/set", "--out", "shards/predictions.jsonl")


def run_processes(side: Side) -> None:
    """Two processes (gloo) on CPU cores."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}")
    config = side.config("processes", data={"manifest": "data/set/both.yaml"}, image_encoder=RESNET, training=DROPOUT)
    side.mmfuse("train", config, launcher=launcher)
    side.mmfuse("evaluate", "processes/run/model", "data/set/both.yaml", "--out", "processes/test")


def run_benchmark(side: Side) -> None:
    """Five strategies and each modality alone, two seeds; the report is drawn again without the times it charts."""
    frozen = {"frozen": True}
    config = side.config(
        "benchmark",
        output_dir="benchmark",
        fusion=None,
        text_encoder=frozen,
        image_encoder=frozen,
        training=DROPOUT,
        cache={"dir": "cache"},
        strategies=dict.fromkeys(STRATEGIES),
        width=16,
        seeds=2,
        resamples=200,
        emap_rows=8,
        diagnostic_rows=24,
    )
    side.mmfuse("benchmark", config)
    for path in (side.folder / "benchmark").glob("cells/*/result.json"):
        times = f'("(?:{"|".join(MEASURED)})": )[^,}}\n]+'
        path.write_text(re.sub(times, r"\g<1>1.0", path.read_text()))
    side.mmfuse("benchmark", config)


RUNS: dict[str, Callable[[Side], None]] = {
    "data": make_data,
    "multitask": run_multitask,
    "captions": run_captions,
    "frozen": run_frozen,
    "shards": run_shards,
    "processes": run_processes,
    "benchmark": run_benchmark,
}


def code_digest(code: Path) -> str:
    """Of all that decides what a side computes: its package, and what this script asks of it."""
    said = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(p for p in (code / "mmfuse").rglob("*") if p.is_file() and p.suffix != ".pyc"):
        said.update(f"{path.relative_to(code)}\n".encode() + path.read_bytes())
    return said.hexdigest()


def make(side: Side, run: str, digest: str) -> float:
    """The seconds that a run took; 0 where it was there."""
    mark = side.folder / f"{run}.done"
    if mark.exists() and mark.read_text() == digest:
        return 0.0
    mark.unlink(missing_ok=True)
    shutil.rmtree(side.folder / run, ignore_errors=True)
    if run == "data":
        shutil.rmtree(side.folder / "cache", ignore_errors=True)
    (side.folder / run).mkdir(parents=True)
    start = time.monotonic()
    RUNS[run](side)
    mark.write_text(digest)
    return time.monotonic() - start


def check_out(commit: str, work: Path) -> Path:
    """The code of a commit, in a git worktree that is left where it is."""
    named = subprocess.run(["git", "rev-parse", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True)
    if named.returncode:
        sys.exit(f"--base {commit}: no such commit here")
    code = work / f"code_{named.stdout[:12]}"
    if not code.exists():
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
        add = ["git", "worktree", "add", "--quiet", "--detach", str(code), named.stdout.strip()]
        subprocess.run(add, cwd=ROOT, check=True)
    return code


def allowances(texts: list[str]) -> dict[str, float]:
    """`RUN/ARTEFACT` to the largest relative difference that is allowed."""
    found = {}
    for text in texts:
        name, _, bound = text.partition("=")
        run, _, artefact = name.partition("/")
        if run not in RUNS or artefact not in ARTEFACTS or not bound:
            sys.exit(f"--allow {text}: RUN/ARTEFACT=RELATIVE, with one of {', '.join(ARTEFACTS)}, is expected")
        found[name] = float(bound)
    return found


def report(run: str, findings: list[Finding], allowed: dict[str, float]) -> bool:
    """Print a line per artefact; whether all are equal or allowed."""
    good = True
    for finding in findings:
        bound = allowed.get(f"{run}/{finding.artefact}", 0.0)
        said = "equal"
        if finding.differing:
            within = finding.relative <= bound
            said = "allowed" if within else "DIFFERS"
            said += f" in {finding.differing}, by {finding.relative:.1e}: {finding.first}"
            good = good and within
        said += f"; new: {', '.join(sorted(finding.new))}" if finding.new else ""
        print(f"{run:10} {finding.artefact:12} {finding.files:4} files  {said}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="the commit that the working tree is compared with")
    parser.add_argument("--work", type=Path, required=True, help="folder for the code, the data and the runs")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument(
        "--allow", action="append", default=[], help="RUN/ARTEFACT=RELATIVE, such as frozen/losses=1e-7"
    )
    parser.add_argument("--renamed", action="append", default=[], help="OLD=NEW, the names of a tensor")
    args = parser.parse_args()
    allowed, renamed = allowances(args.allow), dict(pair.split("=", 1) for pair in args.renamed)
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sides = [Side("base", check_out(args.base, work), work / "base"), Side("tree", ROOT, work / "tree")]
    digests = [code_digest(side.code) for side in sides]
    good = True
    for run in ("data", *(name for name in RUNS if name in args.only and name != "data")):
        with ThreadPoolExecutor(2) as both:
            taken = list(both.map(make, sides, [run] * 2, digests))
        good &= report(run, compare_folders(*(side.folder / run for side in sides), renamed), allowed)
        print(f"{run:10} {'seconds':12} {', '.join(f'{s.name} {t:.0f}' for s, t in zip(sides, taken, strict=True))}")
    print("equal" if good else "DIFFERENT")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
