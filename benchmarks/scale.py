"""Time per pair and peak memory of predict, shard and audit at 1,000, 10,000 and 100,000 pairs.

    python benchmarks/scale.py measure --work DIR [--data DIR] [--only predict shard audit train] [--sizes 1000 10000]
    python benchmarks/scale.py plot --work DIR [--out docs/figures/scale.png]     # a table too
    python benchmarks/scale.py cost --work DIR                                    # a table for docs/scale.md

Pairs are SYNTHETIC chest films of 64 pixels with short reports. Each measurement is a command in a process of its own;
raw results are appended to DIR/scale.jsonl, and what is there is not measured again. Files are read once before, so
that all come from the page cache. A time per pair is (wall time - start-up) / pairs, start-up the median wall time of
the same command on 16 pairs; of repeats, the median counts. `train` streams an epoch of 10,000 pairs from shards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
FEW = 16
SIZES = (1000, 10_000, 100_000)
REPEATS = {FEW: 9, 1000: 9, 10_000: 3}
"""Of the short ones, as these vary more; of others two."""
COMMANDS = ("predict", "shard", "audit")
TRAINED_PAIRS = 10_000
BAND = 0.15
MANY = (10**6, 10**8)
SMALL = {
    "text_encoder": {
        "name": "bert",
        "pretrained": False,
        "max_length": 64,
        "options": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    },
    "image_encoder": {
        "name": "resnet10t",
        "pretrained": False,
        "size": [64, 64],
        "options": {"channels": [16, 32, 48, 64]},
    },
    "fusion": {"name": "concat", "out_dim": 64},
    "training": {"epochs": 1, "batch_size": 32, "learning_rate": 0.001},
}


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        command: predict, shard, audit or train.
        pairs: How many it went through.
        seconds: Wall time of the process.
        cpu: Seconds of all its threads.
        peak: Bytes resident at once.
        read: Bytes of its input.
        written: Bytes of its output.
        load: Of the machine before, a minute's mean of processes that wanted to run.
        machine: Cores and kind of processor.
        rate: Of train, pairs a second within the steps.
    """

    command: str
    pairs: int
    seconds: float
    cpu: float
    peak: int
    read: int
    written: int
    load: float
    machine: str
    rate: float | None = None


# -------------------------------------------------------------------------------------------------------------- measure


def measure(args: argparse.Namespace) -> None:
    """Run what is not in the results yet, the sizes in turn, so that a slow hour does not meet one size alone."""
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "scale.jsonl"
    rounds = {size: args.repeats or REPEATS.get(size, 2) for size in (FEW, *args.sizes)}
    for repeat in range(max(rounds.values())):
        for command in args.only:
            sizes = [TRAINED_PAIRS] if command == "train" else [FEW, *args.sizes]
            for size in sizes:
                done = sum(one.command == command and one.pairs == size for one in read(results))
                if repeat < rounds.get(size, 1) and done <= repeat:
                    found = run(command, size, args)
                    with results.open("a", encoding="utf-8") as handle:
                        handle.write(json.dumps(asdict(found)) + "\n")
                    print(
                        f"{command:8} {size:7} pairs: {found.seconds:8.1f} s, {found.peak / 2**20:6.0f} MiB", flush=True
                    )


def run(command: str, pairs: int, args: argparse.Namespace) -> Measured:
    """One command over so many pairs, as a process of its own."""
    data = args.data or args.work / "data"
    rows, folder, out = data / f"p{pairs}", data / f"pairs{pairs}", args.work / "out"
    if command != "predict" and not (rows / "manifest.yaml").is_file():
        call("data", "phantom", rows, "--studies", pairs)
    if command == "predict" and not folder.is_dir():
        call("data", "phantom", folder, "--studies", pairs, "--pairs", "--seed", 1)
    model = args.work / "model" / "model"
    if command == "predict" and not model.is_dir():
        train_on = data / "p1000"
        if not train_on.is_dir():
            call("data", "phantom", train_on, "--studies", 1000)
        call("train", config(args.work, "model", train_on / "manifest.yaml"))
    shards = args.work / f"shards{pairs}"
    if command == "train" and not (shards / "shards.json").is_file():
        call("data", "shard", rows / "manifest.yaml", "--out", shards, "--size", "1MB")
    shutil.rmtree(out, ignore_errors=True)
    source, words = {
        "predict": (folder, ("predict", model, folder, "--out", out / "predictions.jsonl")),
        "shard": (rows, ("data", "shard", rows / "manifest.yaml", "--out", out)),
        "audit": (rows, ("data", "check", rows / "manifest.yaml", "--out", out)),
        "train": (shards, ("train", config(args.work, "out", shards / "manifest.yaml"))),
    }[command]
    read_bytes, load = warm(source), os.getloadavg()[0]
    start = time.perf_counter()
    process = subprocess.Popen(line(*words), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):  # 4: the audit found an error; many phantoms look alike
        sys.exit(f"{' '.join(line(*words))}: {said.decode(errors='replace')}")
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rate = training_rate(out / "metrics.jsonl") if command == "train" else None
    shutil.rmtree(out, ignore_errors=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    cpu = used.ru_utime + used.ru_stime
    return Measured(command, pairs, seconds, cpu, peak, read_bytes, written, load, machine, rate)


def line(*words: object) -> list[str]:
    """A command of mmfuse."""
    return [sys.executable, "-m", "mmfuse.cli", *map(str, words)]


def environment() -> dict[str, str]:
    """Of the commands: one thread a library call, and no network."""
    there = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), there] if there else [str(ROOT)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


def call(*words: object) -> None:
    """Run a command that is not measured."""
    done = subprocess.run(line(*words), env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line(*words))}: {done.stderr}")


def config(work: Path, name: str, manifest: Path) -> Path:
    """The small model's config, as a file."""
    path = work / f"{name}.yaml"
    values = {"name": "scale", "output_dir": str(work / name), "data": {"manifest": str(manifest)}, **SMALL}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def warm(folder: Path) -> int:
    """Read all files, so that every size finds them in memory; their bytes."""
    return sum(len(file.read_bytes()) for file in folder.rglob("*") if file.is_file())


def training_rate(metrics: Path) -> float:
    """Pairs a second in the steps of a run, the first ten left out."""
    steps = [found for found in map(json.loads, metrics.read_text().splitlines()) if "loss" in found][10:]
    return sum(step["samples"] for step in steps) / sum(step["seconds"] for step in steps)


# -------------------------------------------------------------------------------------------------------------- results


def read(path: Path) -> list[Measured]:
    """All results so far."""
    if not path.is_file():
        return []
    return [Measured(**json.loads(found)) for found in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Point:
    """A command at a number of pairs: medians of its runs.

    Attributes:
        pairs: How many.
        seconds: Wall time.
        start_up: Wall time on 16 pairs.
        peak: Bytes.
        read: Bytes of the input.
        written: Bytes of the output.
        runs: How many runs the medians are of.
    """

    pairs: int
    seconds: float
    start_up: float
    peak: float
    read: int
    written: int
    runs: int

    @property
    def each(self) -> float:
        """Seconds per pair, without start-up."""
        return (self.seconds - self.start_up) / self.pairs


def points(results: list[Measured], command: str) -> list[Point]:
    """By rising number of pairs; none where its start-up was not measured."""
    own = [one for one in results if one.command == command]
    few = [one.seconds for one in own if one.pairs == FEW]
    found = []
    for pairs in sorted({one.pairs for one in own} - {FEW}) if few else []:
        runs = [one for one in own if one.pairs == pairs]
        seconds, peak = (statistics.median(values) for values in ([r.seconds for r in runs], [r.peak for r in runs]))
        found.append(Point(pairs, seconds, statistics.median(few), peak, runs[-1].read, runs[-1].written, len(runs)))
    return found


def table(results: list[Measured]) -> Iterator[str]:
    """Every number that is drawn, and those without subtraction, as markdown."""
    yield "| command | pairs | runs | wall s | start-up s | ms per pair | with start-up | against 10,000 | peak MiB |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for command in COMMANDS:
        found = points(results, command)
        middle = next((p.each for p in found if p.pairs == 10_000), None)
        for p in found:
            share = f"{p.each / middle - 1:+.1%}" if middle else ""
            yield (
                f"| {command} | {p.pairs:,} | {p.runs} | {p.seconds:.1f} | {p.start_up:.1f} | {1000 * p.each:.3f} | "
                f"{1000 * p.seconds / p.pairs:.3f} | {share} | {p.peak / 2**20:.0f} |"
            )


def plot(args: argparse.Namespace) -> None:
    """Draw time per pair and peak memory, and print the table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = read(args.work / "scale.jsonl")
    figure, (times, memory) = plt.subplots(2, 1, figsize=(8, 7.6), dpi=100, sharex=True, layout="constrained")
    looks = zip(COMMANDS, ("#0072b2", "#d55e00", "#009e73"), ("o", "s", "^"), strict=True)
    starts = []
    for command, colour, marker in looks:
        found = points(results, command)
        if not found:
            continue
        starts.append(f"{command} {found[0].start_up:.1f} s")
        pairs = [p.pairs for p in found]
        times.plot(
            pairs, [1000 * p.each for p in found], color=colour, marker=marker, markersize=8, lw=2, label=command
        )
        middle = next((1000 * p.each for p in found if p.pairs == 10_000), None)
        if middle:
            times.axhspan((1 - BAND) * middle, (1 + BAND) * middle, color=colour, alpha=0.13, lw=0)
        memory.plot(pairs, [p.peak / 2**20 for p in found], color=colour, marker=marker, markersize=8, lw=2)
    times.set_title("Time per pair, start-up subtracted; bands: ±15 % around the value at 10,000", fontsize=13)
    times.set_ylabel("ms per pair", fontsize=13)
    memory.set_title("Peak memory of the process", fontsize=13)
    memory.set_ylabel("MiB", fontsize=13)
    memory.set_xlabel(f"pairs   (start-up, measured on {FEW} pairs: {', '.join(starts)})", fontsize=12)
    for axes in (times, memory):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=12)
    memory.set_ylim(top=1.15 * memory.get_ylim()[1])
    times.set_ylim(top=1.1 * times.get_ylim()[1])
    sizes = sorted({p.pairs for command in COMMANDS for p in points(results, command)})
    memory.set_xticks(sizes, [f"{size:,}" for size in sizes])
    memory.minorticks_off()
    figure.legend(fontsize=12, loc="outside upper center", ncols=len(COMMANDS))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out)
    print("\n".join(table(results)))
    print(f"written: {args.out}")


def cost(args: argparse.Namespace) -> None:
    """Print what a million and a hundred million pairs would take, from the rates at the largest size measured."""
    print("\n".join(costs(read(args.work / "scale.jsonl"))))


def costs(results: list[Measured]) -> Iterator[str]:
    """A markdown table of machine-hours, terabytes and gigabytes of memory, and the assumptions below it."""
    largest = {command: points(results, command)[-1] for command in COMMANDS if points(results, command)}
    if not largest:
        sys.exit("nothing is measured yet: see `scale.py measure`")
    rates = [one.rate for one in results if one.rate]
    yield "| | measured | " + " | ".join(f"{number:,} pairs" for number in MANY) + " |"
    yield "|---|---:|" + "---:|" * len(MANY)
    for command, p in largest.items():
        yield _cost_row(f"{command}, machine-hours", f"{1000 * p.each:.2f} ms per pair", p.each / 3600, "h")
    if rates:
        rate = statistics.median(rates)
        yield _cost_row("train, per epoch, machine-hours", f"{rate:.0f} pairs/s", 1 / rate / 3600, "h")
    for command, what in (("predict", "images and reports"), ("shard", "shards"), ("predict", "predictions")):
        if command in largest:
            p = largest[command]
            size = (p.read if what == "images and reports" else p.written) / p.pairs
            yield _cost_row(f"{what}, terabytes", f"{size:,.0f} bytes per pair", size / 1e12, "TB")
    for command in ("audit",):  # sharding holds a shard, which a small set does not fill; listings are told beside
        if command not in largest:
            continue
        p, first = largest[command], points(results, command)[0]
        grown = max(0.0, (p.peak - first.peak) / (p.pairs - first.pairs)) if p.pairs > first.pairs else 0.0
        needed = [f"{(p.peak + grown * (number - p.pairs)) / 1e9:,.1f} GB" for number in MANY]
        yield f"| {command}, memory of a process | {grown:,.0f} bytes more per pair | " + " | ".join(needed) + " |"
    machine = results[-1].machine
    sizes = " and ".join(sorted({f"{p.pairs:,}" for p in largest.values()}))
    yield ""
    yield (
        f"Assumptions: a machine is the one used for the measurement ({machine}, no GPU), without other load; pairs "
        "are like those measured, SYNTHETIC films of 64 pixels with a one-line report, all in the page cache; the "
        f"model is small (resnet10t and a BERT of two layers); the time per pair at {sizes} pairs also holds beyond, "
        "and machines do not wait for each other or for storage; memory grows linearly, as from the smallest to the "
        "largest measured size. For your own images and models, `--dry-run` measures the time."
    )


def _cost_row(what: str, measured: str, each: float, unit: str) -> str:
    return f"| {what} | {measured} | " + " | ".join(f"{_number(each * number)} {unit}" for number in MANY) + " |"


def _number(value: float) -> str:
    """Two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, what in (("measure", measure), ("plot", plot), ("cost", cost)):
        own = commands.add_parser(name, help=what.__doc__)
        own.add_argument("--work", type=Path, required=True)
        own.set_defaults(do=what)
        if name == "measure":
            own.add_argument("--data", type=Path, help="Folder of p1000, pairs1000, ...; what is not there is made.")
            own.add_argument("--only", nargs="+", choices=(*COMMANDS, "train"), default=(*COMMANDS, "train"))
            own.add_argument("--sizes", nargs="+", type=int, default=SIZES)
            own.add_argument(
                "--repeats", type=int, help="Of every size; default: 9 of the small ones, 2 of the largest."
            )
        if name == "plot":
            own.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "scale.png")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
