"""The local engine against Ray on this machine, undisturbed and with an actor and with everything killed on the way.

    python benchmarks/engines.py MODEL [--pairs 5000] [--actors 2] [--suffix jsonl]

The pairs are SYNTHETIC phantoms. Actors compute on one thread, as the local engine does here, so files should be equal
byte by byte. Times hold the start of Ray and of the actors, which load the model each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from mmfuse.data.synthetic.phantom import write_pairs


def command(model: str, folder: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "mmfuse.cli", "predict", model, str(folder), "--out", str(out), *options]


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_chunks(process: subprocess.Popen, out: Path, wanted: int) -> None:
    """Until so many are committed, or the process has ended."""
    folder = Path(f"{out}.chunks")
    while process.poll() is None and len(list(folder.glob("chunk-????????-????????????"))) < wanted:
        time.sleep(0.05)


def kill_an_actor(process: subprocess.Popen) -> str:
    """Of this run, the first that is found."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "MapWorker" in " ".join(child.cmdline()):
            child.kill()
            return f"actor {child.pid} killed"
    return "no actor was found to kill"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--actors", default="2")
    parser.add_argument("--suffix", default="jsonl")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_pairs(Path(scratch) / "pairs", wanted.pairs, seed=11)
        for path in sorted(folder.glob("*.png"))[::97]:
            path.write_bytes(b"no picture")
        ray = ["--engine", "ray", "--actors", wanted.actors]
        for name, options in {"local": [], "ray": ray, "an actor killed": ray, "all killed": ray}.items():
            out = Path(scratch) / name / f"out.{wanted.suffix}"
            began = time.monotonic()
            process, notes = start(command(wanted.model, folder, out, *options)), []
            if name == "an actor killed":
                wait_for_chunks(process, out, 3)
                notes.append(kill_an_actor(process))
            if name == "all killed":
                wait_for_chunks(process, out, 3)
                process.kill()
                process.communicate()
                there = len(list(Path(f"{out}.chunks").glob("chunk-*")))
                notes.append(f"killed with {there} chunks there, then started again")
                process = start(command(wanted.model, folder, out, *options))
            said, _ = process.communicate()
            seconds = time.monotonic() - began
            equal = contents(out.parent) == contents(Path(scratch) / "local")
            print(f"{name}: {seconds:.1f} s, exit {process.returncode}, files {'equal' if equal else 'DIFFER'}", *notes)
            print("    " + said.strip().replace("\n", "\n    "), flush=True)


if __name__ == "__main__":
    main()
