"""Training and prediction against the scripts a user writes by hand, both sides in one run, threads pinned alike.

    python benchmarks/speed.py --data DATA --pretrained DIR --baselines DIR [--only train predict]

DATA has emoji_google/ and flipkart_1050/, --pretrained minilm/, --baselines naive_train.py and naive_predict.py. Every
measurement is a process of its own; sides alternate, and medians are told. Raw numbers are kept in WORK/speed.jsonl;
what is there of the same code is not measured again. The table is printed, and appended to a file of records with
commit and machine; each ratio stands beside the one that the last record of such a machine has.

train: the same model (MiniLM and a CNN at 224, random, with the baseline's own fusion: tutorial_concat.py), batch 16,
nothing frozen, the same rows; float32, and what mixed_precision: auto chooses. The rate is samples over seconds in the
training loop, waiting for data included; share: of this machine's own matrix product of 2048 x 2048. On one set also
with MMFUSE_KEEP_MEMORY=0: page faults a step, the system's share of processor time, peak memory.
flat: resident memory over 500 steps.
predict: the baseline's folder of pairs with the model that `accuracy` trains first; pairs over seconds, decoding
included, model loading left out on both sides. Labels of the test rows against float32's.
accuracy: the held-out rows, over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speed_predict import absent, mmfuse_predict, naive_predict
from speed_records import RECORDS, Row, append, code_id, record, table
from speed_train import flat, mmfuse_train, naive_train

SETS = ("flipkart_1050", "emoji_google")
TOWERS = ("resnet18", "tf_efficientnet_lite0")
PRECISIONS = ("fp32", "auto")
TRAIN_TARGETS = {
    ("resnet18", "fp32"): (1.5, 2.3),
    ("tf_efficientnet_lite0", "fp32"): (2.0, 3.0),
    ("resnet18", "auto"): (2.2, 3.2),
}
"""Ratios to the baseline that are aimed at, by set."""
ENGINES = {
    ("local", "fp32"): 1.85,
    ("local", "bf16"): 3.0,
    ("openvino", "fp32"): None,
    ("openvino", "bf16"): 3.7,
    ("openvino", "int8"): 5.5,
}
SHARE = 0.62
FLAT_STEPS = 500
SIDES = {
    "naive_train": naive_train,
    "mmfuse_train": mmfuse_train,
    "naive_predict": naive_predict,
    "mmfuse_predict": mmfuse_predict,
    "flat": flat,
}
Found = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measure what is asked for, print the table and append it to the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("MMFUSE_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(shared) / "data" if shared else None)
    parser.add_argument("--baselines", type=Path, default=Path(shared) / "baselines" if shared else None)
    parser.add_argument("--pretrained", type=Path, default=os.environ.get("MMFUSE_TEST_PRETRAINED"))
    parser.add_argument("--work", type=Path, default=Path("bench"))
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=400, help="rows for the training rate")
    parser.add_argument("--accuracy-limit", type=int, default=0, help="rows for accuracy; 0: all")
    parser.add_argument("--accuracy-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--towers", nargs="*", default=TOWERS, choices=TOWERS)
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](json.loads(args.job))))
        return
    missing = [name for name in ("data", "pretrained", "baselines") if not getattr(args, name)]
    if missing:
        sys.exit(f"--{missing[0]} is needed (or MMFUSE_TEST_DATA and MMFUSE_TEST_PRETRAINED): see --help")
    args.work.mkdir(parents=True, exist_ok=True)
    args.code = code_id()
    rows = [row for section in args.only for row in SECTIONS[section](args)]
    names = ("repeats", "limit", "accuracy_limit", "accuracy_epochs", "seeds")
    line = record(rows, {name: getattr(args, name) for name in names}, args.threads)
    print(f"\n{json.dumps(line['machine'])}\n{line['commit']}{' with changes' if line['dirty'] else ''}\n")
    print(table(rows, line, args.records), flush=True)
    append(line, args.records)


def measure(args: argparse.Namespace, name: str, side: str, job: dict, **environment: str) -> dict[str, Any]:
    """One measurement in a process of its own, unless it has been made of the same code."""
    raw, key = args.work / "speed.jsonl", f"{args.code} {name}"
    for line in raw.read_text().splitlines() if raw.exists() else []:
        known = json.loads(line)
        if known["key"] == key:
            return known
    where = {name: str(getattr(args, name).resolve()) for name in ("data", "pretrained", "baselines", "work")}
    path = os.pathsep.join(filter(None, (where["baselines"], os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, **environment}
    environment |= {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--side", side, "--job", json.dumps({**job, **where})]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-3000:]}")
    result = {"key": key, "side": side, **json.loads(done.stdout.splitlines()[-1])}
    with raw.open("a") as handle:
        handle.write(json.dumps(result) + "\n")
    print(name, {k: v for k, v in result.items() if k not in ("key", "side", "labels")}, flush=True)
    return result


def median(found: list[dict[str, Any]], key: str) -> float:
    """Of a number over repeats."""
    return statistics.median(one[key] for one in found)


def measure_training(args: argparse.Namespace) -> Iterable[Row]:
    """The rate of each tower, precision and set; on the first set also what keeping memory changes."""
    for tower in args.towers:
        for place, data_set in enumerate(SETS):
            if data_set in args.sets:
                yield from _train_one(args, tower, place, data_set)


def _train_one(args: argparse.Namespace, tower: str, place: int, data_set: str) -> Iterable[Row]:
    job = {"set": data_set, "limit": args.limit, "epochs": 1, "seed": 0, "tower": tower}
    name, keeps_off = f"train {data_set} {tower}", place == 0
    found: Found = {"naive": [], **{precision: [] for precision in args.precisions}, "off": []}
    for repeat in range(args.repeats):
        found["naive"].append(measure(args, f"{name} naive {repeat}", "naive_train", job))
        for precision in args.precisions:
            own = {**job, "precision": precision}
            found[precision].append(measure(args, f"{name} {precision} {repeat}", "mmfuse_train", own))
        if keeps_off:
            own, label = {**job, "precision": "fp32"}, f"{name} fp32 memory not kept {repeat}"
            found["off"].append(measure(args, label, "mmfuse_train", own, MMFUSE_KEEP_MEMORY="0"))
    naive = median(found["naive"], "samples_per_s")
    for precision in args.precisions:
        ours = found[precision]
        rate = median(ours, "samples_per_s")
        values = {"ratio": rate / naive, "naive_per_s": naive, "per_s": rate, "waited": median(ours, "waited")}
        target = TRAIN_TARGETS.get((tower, precision))
        yield Row(f"{name} {precision}", values, target and target[place])
    if "fp32" in args.precisions:
        share = median(found["fp32"], "matmul_share")
        yield Row(f"{name} share of matmul", {"ratio": share}, SHARE if tower == "resnet18" else None)
        if keeps_off:
            yield _memory(name, found["fp32"], found["off"])


def _memory(name: str, kept: list[dict[str, Any]], off: list[dict[str, Any]]) -> Row:
    rates = [median(side, "samples_per_s") for side in (kept, off)]
    values: dict[str, Any] = {"ratio": rates[0] / rates[1]}
    for key in ("cpu_s_a_step", "faults_a_step", "sys_share", "peak_mib"):
        values |= {key: median(kept, key), f"{key}_off": median(off, key)}
    return Row(f"{name} memory kept", {**values, "same_loss": kept[0]["last_loss"] == off[0]["last_loss"]})


def measure_flat(args: argparse.Namespace) -> Iterable[Row]:
    """Resident memory a hundred steps after the start, and at the end."""
    job = {"limit": args.limit, "steps": FLAT_STEPS, "seed": 0, "epochs": 1}
    found = measure(args, "flat", "flat", job)
    resident = found["resident_mib"]
    values = {"ratio": resident[len(resident) // 5] / resident[-1], "mib_at_100": resident[len(resident) // 5]}
    yield Row(f"flat memory, {FLAT_STEPS} steps", {**values, "mib_at_end": resident[-1], "mib_at_most": max(resident)})


def measure_prediction(args: argparse.Namespace) -> Iterable[Row]:
    """Pairs per second of each engine and precision, and what they say of the test rows."""
    trained = accuracy_of(args, SETS[0], "resnet18", "fp32", 0)
    job = {"set": SETS[0], "limit": 300, "model": trained["model"], "manifest": trained["manifest"]}
    skipped = {which: absent(*which) for which in ENGINES}
    found: dict[Any, list[dict[str, Any]]] = {"naive": [], **{which: [] for which in ENGINES}}
    for repeat in range(args.repeats):
        found["naive"].append(measure(args, f"predict naive {repeat}", "naive_predict", job))
        for engine, precision in (which for which in ENGINES if skipped[which] is None):
            own = {**job, "engine": engine, "precision": precision}
            label = f"predict {engine} {precision} {repeat}"
            found[engine, precision].append(measure(args, label, "mmfuse_predict", own))
    naive, exact = median(found["naive"], "pairs_per_s"), found["local", "fp32"][0]["labels"]
    for (engine, precision), target in ENGINES.items():
        name, ours = f"predict resnet18 {engine} {precision}", found[engine, precision]
        if not ours:
            yield Row(name, skipped=skipped[engine, precision])
            continue
        rate, labels = median(ours, "pairs_per_s"), ours[0]["labels"]
        equal = sum(a == b for a, b in zip(labels, exact, strict=True)) / len(exact)
        values = {"ratio": rate / naive, "naive_per_s": naive, "per_s": rate, "equal_labels": equal}
        values |= {"accuracy": ours[0]["accuracy"], "peak_mib": median(ours, "peak_mib")}
        yield Row(name, values, target)


def measure_accuracy(args: argparse.Namespace) -> Iterable[Row]:
    """The held-out rows' accuracy over seeds; the number is the difference in points."""
    for tower in args.towers:
        for data_set in args.sets:
            sides = ("naive", *args.precisions)
            scores = {
                side: [accuracy_of(args, data_set, tower, side, seed)["accuracy"] for seed in range(args.seeds)]
                for side in sides
            }
            naive = statistics.mean(scores["naive"])
            for precision in args.precisions:
                ours = statistics.mean(scores[precision])
                values = {"points": 100 * (ours - naive), "naive": naive, "mmfuse": ours, "seeds": args.seeds}
                yield Row(f"accuracy {data_set} {tower} {precision}", values)


def accuracy_of(args: argparse.Namespace, data_set: str, tower: str, side: str, seed: int) -> dict[str, Any]:
    """A whole training; of mmfuse, its model stays."""
    job = {"set": data_set, "limit": args.accuracy_limit, "epochs": args.accuracy_epochs, "seed": seed, "tower": tower}
    name = f"accuracy {data_set} {tower} {side} {seed}"
    if side == "naive":
        return measure(args, name, "naive_train", job)
    return measure(args, name, "mmfuse_train", {**job, "precision": side})


SECTIONS = {
    "train": measure_training,
    "flat": measure_flat,
    "predict": measure_prediction,
    "accuracy": measure_accuracy,
}

if __name__ == "__main__":
    main()
