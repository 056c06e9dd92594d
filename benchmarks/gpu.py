"""All that is to be known of one GPU in at most six minutes, on data and random towers that it makes itself.

    python benchmarks/gpu.py [--out gpu.jsonl] [--work DIR] [--sections NAME ...] [--small]

4,096 JPEGs of 500 x 375 with texts of 128 tokens; ResNet-50 at 224 and BERT-base, batches of 256. A line of JSON a
section, flushed when it has ended: to the terminal, and behind what OUT holds. A section that fails, or takes longer
than its limit, has its error as its line, and the next one goes on, in a new process where the old one hangs or its
card's state is lost; `--seconds` ends them all. `--small` tries it all with tiny sizes, in seconds, also on a CPU: then
its numbers mean nothing. What else is printed goes to WORK/log.txt. The sections are in gpu_sections.py.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

LIMITS = {
    "machine": 30,
    "data": 40,
    "ceilings": 20,
    "reading": 40,
    "loop_fp32": 25,
    "loop_tf32": 20,
    "loop_bf16": 20,
    "model_bf16": 25,
    "trainer": 50,
    "profile": 40,
    "cached_pooled": 35,
    "cached_tokens": 45,
    "predict": 45,
    "captions": 30,
    "loop_compiled": 110,
}
"""By section, in this order, the seconds that it may take; the slowest is the last, and so the one that is cut."""
TOTAL = 360
START = 45
"""Seconds in which a process must have imported all and begun."""
GRACE = 8
"""Seconds behind its limit in which a section may still tell that it has failed."""


def main() -> None:
    """Run the sections in a process that is watched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--work", type=Path, help="for data, runs and the log; default: a new temporary folder")
    parser.add_argument("--sections", nargs="+", choices=LIMITS, default=list(LIMITS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="of all together")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        run_here(args.sections, args.small, args.work)
        return
    work = args.work or Path(tempfile.mkdtemp(prefix="mmfuse-gpu-"))
    work.mkdir(parents=True, exist_ok=True)
    print(f"data, runs and log.txt are in {work}", file=sys.stderr, flush=True)
    here = [sys.executable, __file__, "--here", "--work", str(work), *(["--small"] if args.small else [])]
    names = [name for name in LIMITS if name in args.sections]
    with args.out.open("a", encoding="utf-8") as out, (work / "log.txt").open("a") as log:

        def keep(line: dict[str, Any]) -> None:
            text = json.dumps(line)
            print(text, flush=True)
            out.write(text + "\n")
            out.flush()

        failed = supervise(lambda left: [*here, "--sections", *left], names, keep, log, args.seconds)
    sys.exit(1 if failed else 0)


def supervise(
    command: Callable[[Sequence[str]], list[str]],
    names: Sequence[str],
    keep: Callable[[dict[str, Any]], None],
    log: TextIO,
    seconds: float,
    limits: dict[str, int] | None = None,
) -> int:
    """Keep the lines of processes that run these sections, each of which goes on behind what the last one did.

    Args:
        command: Starts a process that runs the sections it is given, in their order, and prints a line for each.
        names: All of them.
        keep: Takes the line of a section.
        log: Takes what else is printed.
        seconds: For all together; what then is left has a line that says so.
        limits: By section; default: `LIMITS`.

    Returns:
        How many sections have failed or were left out.
    """
    end, left, failed, limits = time.monotonic() + seconds, list(names), 0, limits or LIMITS
    while left and time.monotonic() < end:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        pipe = subprocess.PIPE
        with subprocess.Popen(command(left), stdout=pipe, stderr=log, env=environment, start_new_session=True) as child:
            try:
                failed += take_lines(Lines(child.stdout, log), left, keep, end, limits)
            finally:
                kill(child)
    for name in left:
        keep({"section": name, "error": "no time left"})
    return failed + len(left)


def take_lines(
    lines: Lines, left: list[str], keep: Callable[[dict[str, Any]], None], end: float, limits: dict[str, int]
) -> int:
    """Keep a process's lines, and take their sections out of `left`, until it can do no more; how many have failed."""
    start, failed = START, 0
    while left:
        wait = min(start + limits[left[0]] + GRACE, end - time.monotonic())
        line, ended = lines.next(wait, left[0])
        if line is None:
            late = "no time left" if time.monotonic() >= end else f"no answer in {wait:.0f} s"
            line = {"section": left[0], "error": "the process ended, see log.txt" if ended else late, "lost": True}
        keep(line)
        failed += "error" in line
        left.pop(0)
        if line.get("lost"):
            break
        start = 0
    return failed


class Lines:
    """What a process prints, read with a limit of time."""

    def __init__(self, source: Any, log: TextIO):
        self.source, self.log, self.pending = source, log, b""
        os.set_blocking(source.fileno(), False)
        self.ready = selectors.DefaultSelector()
        self.ready.register(source, selectors.EVENT_READ)

    def next(self, seconds: float, section: str) -> tuple[dict[str, Any] | None, bool]:
        """The line of a section, and whether there is none because the process has ended."""
        end = time.monotonic() + seconds
        while True:
            while b"\n" in self.pending:
                line, self.pending = self.pending.split(b"\n", 1)
                if line.startswith(b'{"section": "' + section.encode() + b'"'):
                    return json.loads(line), False
                self.log.write(line.decode(errors="replace") + "\n")
            if not self.ready.select(max(0.0, end - time.monotonic())):
                return None, False
            read = self.source.read()
            if read == b"":
                return None, True
            self.pending += read or b""


def kill(child: subprocess.Popen) -> None:
    """End a process with all that it has started, unless it has ended by itself."""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def run_here(names: Sequence[str], small: bool, work: Path) -> None:
    """Run sections in this process, and print their lines."""
    from gpu_sections import Bench, run_section

    bench = Bench(small, work)
    for name in names:
        line = run_section(bench, name, LIMITS[name])
        print(json.dumps(line), flush=True)
        if line.get("lost"):  # the next ones need a new process
            return


if __name__ == "__main__":
    main()
