"""Captions per second against transformers' VisionEncoderDecoderModel, and a decoder with its cache and without.

    python benchmarks/caption_speed.py --images DIR --tokenizer DIR --naive naive_caption.py [--repeats 3]

Both sides have a ViT of 12 layers, width 192, at 224 pixels, and a GPT-2 decoder of 4 layers, width 384, 30,522 words,
with random weights; every caption has the same number of tokens. The naive side is a script that is given; ours is
`Predictor` over the same files, the model loaded, decoding of images included on both sides. Every measurement is a
process of its own, threads pinned alike; sides alternate, and medians are printed. Raw numbers are kept in
WORK/caption_speed.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOKENS, CACHE_TOKENS = 40, 60
CASES = {"greedy, batch 8": (1, 8, 8), "greedy, free batch": (1, 8, 32), "beam 4, batch 8": (4, 8, 8)}
"""By case: beams, the naive side's batch, and ours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with at least --limit pictures")
    parser.add_argument("--tokenizer", help="folder of a tokenizer with 30,522 words")
    parser.add_argument("--naive", type=Path, help="the script to compare with")
    parser.add_argument("--work", type=Path, default=Path("bench"))
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run_job(json.loads(args.job))))
        return
    for name in ("images", "tokenizer", "naive"):
        if getattr(args, name) is None:
            sys.exit(f"--{name} is needed: see --help")
    args.work.mkdir(parents=True, exist_ok=True)
    common = {"images": str(args.images.resolve()), "tokenizer": args.tokenizer, "limit": args.limit}
    for case, (beams, theirs, ours) in CASES.items():
        found: dict[str, list[float]] = {"naive": [], "mmfuse": []}
        for repeat in range(args.repeats):
            for side in ("naive", "mmfuse") if repeat % 2 == 0 else ("mmfuse", "naive"):
                if side == "naive":
                    line = run_naive(args, beams, theirs)
                else:
                    line = run_ours(args, {**common, "kind": "predict", "beams": beams, "batch": ours})
                found[side].append(line["tokens_per_s"])
                keep(args, {"case": case, "side": side, "repeat": repeat, **line})
        a, b = (statistics.median(found[side]) for side in ("naive", "mmfuse"))
        print(f"{case}: naive {a:.0f}, mmfuse {b:.0f} tokens/s: {b / a:.2f}x", flush=True)
    sides: dict[str, list[float]] = {"uncached": [], "cached": []}
    for repeat in range(args.repeats):
        for side in sides:
            line = run_ours(args, {**common, "kind": side})
            sides[side].append(line["seconds"])
            keep(args, {"case": "cache", "side": side, "repeat": repeat, **line})
    a, b = (statistics.median(sides[side]) for side in ("uncached", "cached"))
    print(f"decoder, {CACHE_TOKENS} tokens, batch 8: uncached {a:.2f} s, cached {b:.2f} s: {a / b:.2f}x", flush=True)


def keep(args: argparse.Namespace, line: dict) -> None:
    with (args.work / "caption_speed.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"threads": args.threads, **line}) + "\n")


def run_naive(args: argparse.Namespace, beams: int, batch: int) -> dict:
    command = [sys.executable, str(args.naive), "--images", str(args.images), "--limit", str(args.limit)]
    command += ["--batch-size", str(batch), "--new-tokens", str(TOKENS), "--num-beams", str(beams)]
    return run(args, command)


def run_ours(args: argparse.Namespace, job: dict) -> dict:
    return run(args, [sys.executable, __file__, "--job", json.dumps({**job, "threads": args.threads})])


def run(args: argparse.Namespace, command: list[str]) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def build(job: dict):
    import torch
    from transformers import AutoTokenizer

    from mmfuse.config import DecoderConfig, GenerationConfig, ImageEncoderConfig
    from mmfuse.encoders.image import build_image_encoder
    from mmfuse.heads.decoder import build_decoder
    from mmfuse.model import FusionModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    assert len(tokenizer) == 30522, f"{len(tokenizer)} words"
    image = build_image_encoder(ImageEncoderConfig("vit_tiny_patch16_224", pretrained=False, size=[224, 224]))
    config = DecoderConfig(hidden_dim=384, num_layers=4, num_heads=6, max_length=1024)
    decoder = build_decoder(config, lambda: tokenizer, None, "decoder")
    generation = GenerationConfig(num_beams=job.get("beams", 1), min_length=TOKENS, max_length=TOKENS)
    task = {"type": "captioning", "labels": [], "decoder": decoder, "generation": generation}
    return FusionModel(None, image, {"name": "image_only", "out_dim": 192}, {"caption": task}).eval()


def run_job(job: dict) -> dict:
    import torch

    from mmfuse.config import GenerationConfig
    from mmfuse.predict import Predictor
    from mmfuse.types import Prediction, Sample

    torch.set_num_threads(job["threads"])
    model = build(job)
    if job["kind"] == "predict":
        names = sorted(p for p in Path(job["images"]).iterdir() if p.suffix.lower() in (".jpg", ".png"))[: job["limit"]]
        samples = [Sample(path.stem, images=(str(path),)) for path in names]
        predictor = Predictor(model, batch_size=job["batch"])
        start = time.perf_counter()
        found = list(predictor(samples))
        seconds = time.perf_counter() - start
        written = [p.tasks["caption"]["tokens"] for p in found if isinstance(p, Prediction)]
        assert len(written) == len(samples)
        assert {len(tokens) for tokens in written} == {TOKENS}
        return {"captions": len(written), "seconds": seconds, "tokens_per_s": len(written) * TOKENS / seconds}
    head = model.heads["caption"]
    memory, mask = torch.randn(8, 198, 384), torch.ones(8, 198, dtype=torch.bool)
    options = GenerationConfig(min_length=CACHE_TOKENS, max_length=CACHE_TOKENS)
    with torch.inference_mode():
        head.decoder.generate(memory, mask, GenerationConfig(max_length=3))
        start = time.perf_counter()
        ids, *_ = head.decoder.generate(memory, mask, options, use_cache=job["kind"] == "cached")
        seconds = time.perf_counter() - start
    assert ids.shape == (8, CACHE_TOKENS)
    return {"seconds": seconds}


if __name__ == "__main__":
    main()
