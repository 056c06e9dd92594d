"""What the fuzzers share: cases in a process of their own, watched for crashes, time and what they report."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def run(
    doc: str | None,
    kinds: Iterable[str],
    seconds: float,
    work: Callable[[str, int, Any, Any], None],
    keep: Callable[[str, int, Path], None],
) -> None:
    """Read the command line, run cases until the time is up, and exit with 1 if something was found.

    Args:
        doc: Of the script, for --help.
        kinds: What --what may be.
        seconds: A case that takes more is a problem, and a new process goes on behind it.
        work: Called in a process with what, the first number, a shared value for the number of the case that is being
            read, and a queue for (kind, number): "read", "refused", or what is wrong.
        keep: Writes a case that found something to a path without suffix.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=sorted(kinds), required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder for the cases that found something")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    end, first = time.monotonic() + 60 * args.minutes, args.first
    counts = {"read": 0, "refused": 0}
    problems = 0
    while time.monotonic() < end:
        current, found = context.Value("q", -1), context.SimpleQueue()
        process = context.Process(target=work, args=(args.what, first, current, found), daemon=True)
        process.start()
        number, since, news, ours = -1, time.monotonic(), [], False
        while process.is_alive() and not ours:
            while not found.empty():
                kind, case = found.get()
                if kind in counts:
                    counts[kind] += 1
                else:
                    news.append((kind, case))
            if current.value != number or number == -1:  # -1: it is still importing
                number, since = current.value, time.monotonic()
            elif time.monotonic() - since > seconds:
                news.append((f"more than {seconds} s", number))
                ours = True
            ours = ours or time.monotonic() > end
            time.sleep(0.01)
        if not ours:
            news.append((f"crash, exit code {process.exitcode}", current.value))
        process.kill()
        process.join()
        first = current.value + 1
        for kind, case in news:
            problems += 1
            args.keep.mkdir(parents=True, exist_ok=True)
            keep(args.what, case, args.keep / f"{args.what}_{case}")
            print(f"case {case}: {kind}", flush=True)
    print(
        f"{args.what}: {sum(counts.values())} cases, {counts['read']} read, {counts['refused']} refused, "
        f"{problems} problems; next --first {first}"
    )
    sys.exit(problems > 0)
