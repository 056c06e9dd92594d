"""The sections of gpu.py: each measures one thing and gives a dict of numbers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from gpu_data import LABELS, SMALL, Sizes, config_of, resident_batches, write_data
from gpu_profile import LAST, Watch
from torch import Tensor, nn

import mmfuse
from mmfuse.config import DecoderConfig, GenerationConfig, config_from_dict
from mmfuse.data.batches.loader import make_loader
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import read_image
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.heads import build_head
from mmfuse.heads.decoder import build_decoder
from mmfuse.predict import Predictor, default_workers, open_studies, predict_to_file, prepare_pairs
from mmfuse.training import loop
from mmfuse.training.build import build_model
from mmfuse.training.learner import Learner
from mmfuse.types import Features, Step

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {}


class Late(BaseException):
    """A section's time is over; nothing in what it calls may catch it."""


class Bench:
    """What the sections share.

    Args:
        small: Tiny sizes.
        work: For data and runs; what is there already is taken.
    """

    def __init__(self, small: bool, work: Path):
        self.small, self.work = small, work
        self.sizes = SMALL if small else Sizes()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.real = self.device.type == "cuda"

    @property
    def data(self) -> Path:
        """The folder of the drawn pairs, which are written where they are not there."""
        folder = self.work / f"data_{self.sizes.rows}"
        if not (folder / "manifest.yaml").is_file():
            write_data(folder, self.sizes)
        return folder

    @cached_property
    def resident(self) -> list[dict[str, Any]]:
        """Batches on the device."""
        return resident_batches(self.sizes, self.device)

    def config(self, run: str, **changes: dict[str, Any]) -> dict[str, Any]:
        """The config of a new run."""
        shutil.rmtree(self.work / run, ignore_errors=True)
        return config_of(self.data, self.work / run, self.sizes, **changes)

    def model(self) -> Any:
        """A new model on the CPU, as the Trainer builds it, with its config and table."""
        config = config_from_dict(self.config("unused"))
        table = load_table(load_manifest(config.data.manifest))
        return build_model(config, table), config, table

    def wait(self) -> None:
        """Until the device has done all."""
        if self.real:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], warm: int, times: int) -> float:
        """The mean time of a call, behind some that warm up."""
        for _ in range(warm):
            work()
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - start) / times

    def peak(self) -> dict[str, int]:
        """Most memory of the device since the section began, in MiB."""
        return {"peak_mib": torch.cuda.max_memory_allocated() // 2**20} if self.real else {}


def run_section(bench: Bench, name: str, limit: float) -> dict[str, Any]:
    """A section's line: what it has found, or its error; `lost` where this process can measure no more."""
    start = time.perf_counter()

    def late(*_: Any) -> None:
        raise Late(f"more than {limit:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    line: dict[str, Any] = {"section": name}
    try:
        if bench.real:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        line |= SECTIONS[name](bench)
    except (Exception, Late) as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        line |= {"error": f"{type(error).__name__}: {lines[0]}"[:500]}
        line |= {"lost": True} if bench.real and ("CUDA error" in str(error) or isinstance(error, Late)) else {}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return line | {"seconds": round(time.perf_counter() - start, 2)}


def section(call: Callable[[Bench], dict[str, Any]]) -> Callable[[Bench], dict[str, Any]]:
    """Make a function a section of its name."""
    SECTIONS[call.__name__] = call
    return call


@section
def machine(bench: Bench) -> dict[str, Any]:
    """What it runs on."""
    found = {"device": platform.processor() or "cpu", "small": bench.small}
    if bench.real:
        of = torch.cuda.get_device_properties(0)
        found |= {"device": of.name, "memory_gib": round(of.total_memory / 2**30, 1), "cuda": torch.version.cuda}
        found |= {"capability": f"{of.major}.{of.minor}", "cudnn": torch.backends.cudnn.version()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {module.__name__: module.__version__ for module in (torch, transformers, timm, mmfuse)}
    return {**found, "cores": cores, "workers": default_workers(), "python": platform.python_version(), **versions}


@section
def data(bench: Bench) -> dict[str, Any]:
    """Drawing the pairs."""
    size = write_data(bench.work / f"data_{bench.sizes.rows}", bench.sizes)
    return {"rows": bench.sizes.rows, "kib_a_jpeg": round(size / bench.sizes.rows / 1024, 1)}


@section
def ceilings(bench: Bench) -> dict[str, Any]:
    """The matrix product and the copies that nothing can be faster than."""
    n, found = bench.sizes.product, {}
    for name, dtype, precision in (("bf16", torch.bfloat16, False), ("tf32", None, True), ("fp32", None, False)):
        a, b = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
        with tf32(precision):
            taken = bench.seconds(lambda a=a, b=b: a @ b, 3, 20 if name == "bf16" else 5)
        found[f"{name}_tflops"] = round(2 * n**3 / taken / 1e12, 2)
    here = torch.empty(bench.sizes.copied, dtype=torch.uint8, device=bench.device)
    there = torch.empty_like(here)
    found["copy_gb_s"] = round(2 * len(here) / bench.seconds(lambda: there.copy_(here), 3, 10) / 1e9, 1)
    host = torch.empty(bench.sizes.copied // 4, dtype=torch.uint8, pin_memory=bench.real)
    part = here[: len(host)]
    taken = bench.seconds(lambda: part.copy_(host, non_blocking=True), 2, 5)
    return {**found, "from_host_gb_s": round(len(host) / taken / 1e9, 1)}


@section
def reading(bench: Bench) -> dict[str, Any]:
    """JPEGs decoded and scaled on one core, and whole batches as the Trainer's loader brings them, without a model."""
    model, _, table = bench.model()
    pairs = prepare_pairs(model, table, num_workers=0)
    paths = sorted((bench.data / "pairs").glob("*.jpg"))[:64]
    options = pairs.image_options
    taken = [seconds_of(lambda path=path: read_image(path, options))[0] for path in paths]
    found: dict[str, Any] = {"ms_a_jpeg": round(1e3 * statistics.median(taken), 2)}
    rows = pairs.table.indices("train")
    plan = [rows[i : i + bench.sizes.batch] for i in range(0, len(rows), bench.sizes.batch)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    for workers in sorted({default_workers(), 0 if bench.small else cores - 1}):
        taken, _ = seconds_of(lambda workers=workers: list(make_loader(pairs.at(0), plan, workers)))
        found[f"rows_per_s_with_{workers}_workers"] = round(len(rows) / taken, 1)
    return found


class Naive(nn.Module):
    """The model that anyone would write: towers of timm and transformers, means, one linear layer."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.image = timm.create_model(sizes.image, pretrained=False, num_classes=0)
        self.text = transformers.BertModel(transformers.BertConfig(**dict(sizes.bert)), add_pooling_layer=False)
        self.last = nn.Linear(self.image.num_features + self.text.config.hidden_size, len(LABELS))
        mean = torch.tensor([123.7, 116.3, 103.5]).view(1, 3, 1, 1)
        self.register_buffer("mean", mean)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits."""
        pixels = ((batch["pixels"] - self.mean) / 58.0).contiguous(memory_format=torch.channels_last)
        text = self.text(input_ids=batch["input_ids"], attention_mask=batch["text_mask"].long())
        return self.last(torch.cat([self.image(pixels), text.last_hidden_state.mean(1)], dim=1))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TF32 in products and convolutions, or in neither."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and what it gives."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def time_steps(bench: Bench, module: nn.Module, loss_of: Callable[[Any], Tensor], half: bool) -> dict[str, Any]:
    """Forward, backward and AdamW on batches that lie on the device, in turn."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    number = 0

    def step() -> None:
        nonlocal number
        with torch.autocast(bench.device.type, torch.bfloat16) if half else nullcontext():
            loss = loss_of(bench.resident[number % 2])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        number += 1

    first, _ = seconds_of(lambda: bench.seconds(step, 1, 1))
    taken = bench.seconds(step, 3, bench.sizes.steps)
    rate = {"pairs_per_s": round(bench.sizes.batch / taken, 1), "ms_a_step": round(1e3 * taken, 2)}
    return {**rate, "first_two_s": round(first, 2), **bench.peak()}


def hand_written(bench: Bench, tf32_too: bool, half: bool, backend: str | None = None) -> dict[str, Any]:
    """The loop of `Naive`, perhaps with its towers compiled."""
    torch.manual_seed(0)
    model = Naive(bench.sizes).to(bench.device).train()
    model.image.to(memory_format=torch.channels_last)
    if backend is not None:
        model.image, model.text = (torch.compile(tower, backend=backend) for tower in (model.image, model.text))

    def loss_of(batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch).float(), batch["target.label"])

    with tf32(tf32_too):
        return time_steps(bench, model, loss_of, half)


@section
def loop_fp32(bench: Bench) -> dict[str, Any]:
    """By hand, in fp32 throughout."""
    return hand_written(bench, False, False)


@section
def loop_tf32(bench: Bench) -> dict[str, Any]:
    """By hand, with TF32."""
    return hand_written(bench, True, False)


@section
def loop_bf16(bench: Bench) -> dict[str, Any]:
    """By hand, under autocast."""
    return hand_written(bench, True, True)


@section
def loop_compiled(bench: Bench) -> dict[str, Any]:
    """The same with compiled towers; small, they are only traced."""
    backend = "eager" if bench.small else "inductor"
    return {"backend": backend, **hand_written(bench, True, True, backend)}


@section
def model_bf16(bench: Bench) -> dict[str, Any]:
    """Our model and losses in the same loop: no loader, no Trainer; and its forward pass alone."""
    model, config, _ = bench.model()
    learner = Learner(model, config).to(bench.device).train()
    step = Step(0, 1, 0, 0, {"label": float(bench.sizes.batch)}, float(bench.sizes.batch))
    with tf32(True):
        found = time_steps(bench, learner, lambda batch: learner(batch, step)[0], True)
        for name, half in (("bf16", True), ("tf32", False)):
            found[f"forward_{name}_pairs_per_s"] = forward_rate(bench, model, half)
    with tf32(False):
        found["forward_fp32_pairs_per_s"] = forward_rate(bench, model, False)
    return found


def forward_rate(bench: Bench, model: Any, half: bool) -> float:
    """Pairs per second of inference on a batch that lies on the device."""
    model.eval()
    with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16) if half else nullcontext():
        taken = bench.seconds(lambda: model(bench.resident[0], predict=True), 3, bench.sizes.steps)
    return round(bench.sizes.batch / taken, 1)


def train(bench: Bench, run: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """A run of the Trainer: rows per second of its steps, waiting for data included, behind the first epoch."""
    whole, _ = seconds_of(lambda: mmfuse.train(bench.config(run, **changes)))
    lines = [json.loads(line) for line in (bench.work / run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    late = [line for line in steps if line["epoch"]]
    taken = sum(line["seconds"] for line in late)
    found = {"rows_per_s": round(sum(line["samples"] for line in late) / taken, 1), "steps": len(late)}
    found["waited_share"] = round(sum(line["waited"] for line in late) / taken, 3)
    found["first_epoch_s"] = round(sum(line["seconds"] for line in steps if not line["epoch"]), 2)
    return {**found, "run_s": round(whole, 2), **bench.peak()}


@section
def trainer(bench: Bench) -> dict[str, Any]:
    """End to end from JPEGs, bf16."""
    return train(bench, "run", training={"epochs": bench.sizes.epochs[0]})


@section
def cached_pooled(bench: Bench) -> dict[str, Any]:
    """Epochs on pooled features of frozen towers, which the run computes first."""
    return cached(bench, "concat", bench.sizes.epochs[1])


@section
def cached_tokens(bench: Bench) -> dict[str, Any]:
    """The same with all tokens."""
    return cached(bench, "cross_attention", bench.sizes.epochs[2])


def cached(bench: Bench, fusion: str, epochs: int) -> dict[str, Any]:
    """A run on cached features."""
    frozen = {"frozen": True}
    sections = {"text_encoder": frozen, "image_encoder": frozen, "fusion": {"name": fusion, "out_dim": 256}}
    return train(bench, f"run_{fusion}", **sections, training={"epochs": epochs})


@section
def predict(bench: Bench) -> dict[str, Any]:
    """A folder of JPEGs and texts to a file, as `mmfuse predict` does it, and the forward pass alone."""
    folder = bench.work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    bench.model()[0].eval().save_pretrained(folder)
    predictor = Predictor.from_pretrained(folder, batch_size=bench.sizes.batch)
    studies, out = open_studies(str(bench.data / "pairs")), bench.work / "predictions.jsonl"
    list(predictor(islice(studies.read(0, len(studies)), bench.sizes.batch)))  # warms up
    taken, counts = seconds_of(lambda: predict_to_file(predictor, studies, out, overwrite=True))
    assert counts.predictions == bench.sizes.rows
    alone = forward_rate(bench, predictor.model, False)
    rate = round(counts.predictions / taken, 1)
    threads = {"threads": predictor.threads, "forward_pairs_per_s": alone, "share": round(rate / alone, 3)}
    return {"pairs_per_s": rate, **threads, **bench.peak()}


@section
def captions(bench: Bench) -> dict[str, Any]:
    """Greedy captions of a decoder with cross-attention: our loop, and transformers' `generate` on the same memory."""
    width, layers, memory, length, batches = bench.sizes.caption
    given = DecoderConfig(hidden_dim=width, num_layers=layers, num_heads=4, max_length=length + 2)
    words = train_vocabulary("byte_bpe", ["a b c"], 300, 64)
    decoder: Any = build_decoder(given, lambda: words, None, "decoder")
    if not bench.small:
        decoder.model.resize_token_embeddings(30522)
    head: Any = build_head("captioning", width, [], {"decoder": decoder}).to(bench.device).eval()
    head.set_generation(GenerationConfig(min_length=length, max_length=length))
    found: dict[str, Any] = {}
    for rows in batches:
        tokens = torch.randn(rows, memory, width, device=bench.device)
        mask, there = (torch.ones(*shape, dtype=torch.bool, device=bench.device) for shape in ((rows, memory), (rows,)))
        fused = Features(tokens, mask, tokens[:, 0], there)
        with torch.inference_mode():
            ours = bench.seconds(lambda fused=fused: head.predict(fused, None), 1, 2)
            read = head.memory(fused)
            theirs = bench.seconds(lambda read=read: generate(decoder, *read, head.generation), 1, 2)
        found |= {f"tokens_per_s_{rows}": round(rows * length / ours), f"ratio_{rows}": round(theirs / ours, 2)}
    return found


def generate(decoder: Any, memory: Tensor, mask: Tensor, options: GenerationConfig) -> Tensor:
    """The same captions by transformers, with its cache."""
    prompt = torch.full((len(memory), 1), decoder.bos, device=memory.device)
    return decoder.model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        encoder_hidden_states=memory,
        encoder_attention_mask=mask.long(),
        max_new_tokens=options.max_length,
        min_new_tokens=options.min_length,
        do_sample=False,
        pad_token_id=decoder.pad,
        eos_token_id=decoder.eos,
    )


@section
def profile(bench: Bench) -> dict[str, Any]:
    """Training by the Trainer: how often a step waits for the card and where, its kernels, and its busy time.

    A step is all from its beginning to that of the next one, logging and moving the batch included. PyTorch tells of
    all waits but those of collectives; a step takes longer under its profiler.
    """
    watch = Watch(bench.real)
    step = loop.Trainer.step

    def watched(self: Any, batches: list[Any]) -> Any:
        watch.at(self.state.step)
        return step(self, batches)

    loop.Trainer.step = watched  # type: ignore[method-assign]
    try:
        epochs = 1 + LAST * bench.sizes.batch // max(1, bench.sizes.rows - 2 * bench.sizes.batch)
        mmfuse.train(bench.config("profiled", training={"epochs": epochs, "max_steps": LAST}))
    finally:
        loop.Trainer.step = step  # type: ignore[method-assign]
        watch.end()
    return watch.found
