"""Kill a training, a prediction, a benchmark with SIGKILL at random moments; the result must be the undisturbed one's.

    python benchmarks/kill.py train --work DIR [--kills 10] CONFIG [key=value ...]
    python benchmarks/kill.py predict --work DIR --model MODEL --folder FOLDER [--kills 10]
    python benchmarks/kill.py benchmark --work DIR [--kills 10] CONFIG [key=value ...]

Prints what was killed where and whether the files are equal, and exits with 1 where they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def mmfuse(*args: str) -> list[str]:
    return [sys.executable, "-m", "mmfuse.cli", *args]


def run(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


def run_killed(command: list[str], targets: list[int], reached, jitter: float, rng: random.Random, where) -> int:
    """Run `command` to its end; each time it has come as far as the next target, and a random moment more, kill it."""
    done = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        if done < len(targets):
            while process.poll() is None and reached() < targets[done]:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, jitter))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                print(f"kill {done}: {where()}", flush=True)
                continue
        _, error = process.communicate()
        if process.returncode:
            sys.exit(f"exit code {process.returncode}: {error.decode()[-2000:]}")
        return done


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def kill_training(args: argparse.Namespace) -> bool:
    rng = random.Random(args.seed)
    config, overrides = args.config, args.overrides
    whole, killed = args.work / "whole", args.work / "killed"
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    seconds = run(mmfuse("train", config, *overrides, f"output_dir={whole}"))
    log = killed / "metrics.jsonl"

    def reached() -> int:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return max((json.loads(x)["step"] for x in lines if x.endswith("\n")), default=0)

    def where() -> str:
        saved = (
            sorted(p.name for p in (killed / "checkpoints").glob("step_*")) if (killed / "checkpoints").exists() else []
        )
        return f"step {reached()} written, last checkpoint {saved[-1] if saved else 'none'}"

    command = mmfuse("train", config, *overrides, f"output_dir={killed}")
    total = len({x["step"] for x in map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())})
    targets = sorted(rng.sample(range(total), args.kills))
    kills = run_killed(command, targets, reached, 4 * seconds / total, rng, where)
    same = digest(whole / "model" / "model.safetensors") == digest(killed / "model" / "model.safetensors")
    steps = [line["step"] for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]
    once = steps == list(range(1, len(steps) + 1))
    losses = [
        [x["loss"] for x in map(json.loads, (f / "metrics.jsonl").read_text().splitlines()) if "loss" in x]
        for f in (whole, killed)
    ]
    print(
        f"{kills} kills; {len(steps)} steps, each once: {once}; losses equal: {losses[0] == losses[1]}; weights "
        f"bit-equal: {same}"
    )
    return kills == args.kills and same and once and losses[0] == losses[1]


def kill_prediction(args: argparse.Namespace) -> bool:
    rng = random.Random(args.seed)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    whole, killed = args.work / "whole.jsonl", args.work / "killed.jsonl"
    seconds = run(mmfuse("predict", args.model, args.folder, "--out", str(whole)))
    progress = args.work / "killed.jsonl.progress"

    def reached() -> int:
        return json.loads(progress.read_text())["done"] if progress.exists() else 0

    def where() -> str:
        return f"{reached()} studies committed"

    command = mmfuse("predict", args.model, args.folder, "--out", str(killed))
    total = sum(len(whole.with_suffix(n).read_text().splitlines()) for n in (".jsonl", ".errors.jsonl"))
    targets = sorted(
        rng.sample(range(max(total - 512, args.kills)), args.kills)
    )  # within the last chunk all is the same
    kills = run_killed(command, targets, reached, seconds / 30, rng, where)
    names = (".jsonl", ".errors.jsonl")
    same = all(whole.with_suffix(n).read_bytes() == killed.with_suffix(n).read_bytes() for n in names)
    rows = [len(killed.with_suffix(n).read_text().splitlines()) for n in names]
    print(f"{kills} kills; {rows[0]} predictions, {rows[1]} errors; files byte-equal: {same}")
    return kills == args.kills and same


def kill_benchmark(args: argparse.Namespace) -> bool:
    rng = random.Random(args.seed)
    whole, killed = args.work / "whole", args.work / "killed"
    for folder in (whole, killed, args.work / "cache_whole", args.work / "cache_killed"):
        shutil.rmtree(folder, ignore_errors=True)

    def command(folder: Path) -> list[str]:  # each with a cache of its own: it is killed while features are written too
        places = (f"output_dir={folder}", f"cache.dir={args.work / f'cache_{folder.name}'}")
        return mmfuse("benchmark", args.config, *args.overrides, *places)

    def lines(folder: Path) -> list[dict]:
        path = folder / "results.jsonl"
        text = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in text if line.endswith("\n")]

    def said(folder: Path) -> dict:
        times = ("seconds", "samples_per_s", "peak_mib")
        return {
            (x["row"], x["seed"], x["fold"], x["trial"]): {k: v for k, v in x.items() if k not in times}
            for x in lines(folder)
        }

    def where() -> str:
        building = [path.name.removesuffix(".building") for path in killed.glob("cells/*.building")]
        writing = len(list((args.work / "cache_killed").glob("features/*/building-*")))
        return (
            f"{len(lines(killed))} of {total} cells done, at work on {', '.join(building) or 'none'}; "
            f"{writing} cache shards begun"
        )

    seconds = run(command(whole))
    total = len(lines(whole))
    targets = sorted(rng.choices(range(total), k=args.kills))
    kills = run_killed(command(killed), targets, lambda: len(lines(killed)), 4 * seconds / total, rng, where)
    tables = (whole / "table.md").read_bytes() == (killed / "table.md").read_bytes()
    cells = len(lines(killed)) == total and said(whole) == said(killed)
    print(f"{kills} kills; {total} cells, each once and equal: {cells}; table.md byte-equal: {tables}")
    return kills == args.kills and tables and cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.set_defaults(command=kill_training)
    training.add_argument("config")
    training.add_argument("overrides", nargs="*", default=[])
    predicting = commands.add_parser("predict")
    predicting.set_defaults(command=kill_prediction)
    predicting.add_argument("--model", required=True)
    predicting.add_argument("--folder", required=True)
    comparing = commands.add_parser("benchmark")
    comparing.set_defaults(command=kill_benchmark)
    comparing.add_argument("config")
    comparing.add_argument("overrides", nargs="*", default=[])
    for command in (training, predicting, comparing):
        command.add_argument("--work", type=Path, required=True)
        command.add_argument("--kills", type=int, default=10)
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.exit(0 if args.command(args) else 1)


if __name__ == "__main__":
    main()
