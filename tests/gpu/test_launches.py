"""`torchrun` with one process on the card: DistributedDataParallel and FSDP2, against training without a launcher."""

import os
import sys

import numpy as np
import pytest
import yaml
from child_processes import free_port, run_child
from side_by_side import losses, train_on

from mmfuse.config import config_to_dict

pytestmark = [pytest.mark.gpu, pytest.mark.heavy]

EACH = """
import sys
import mmfuse
from mmfuse.training import loop
fit = loop.Trainer.fit
def telling(self):
    print(f"wrapped as {type(self.wrapped).__name__} on {self.accelerator.device.type}", flush=True)
    return fit(self)
loop.Trainer.fit = telling
for config in sys.argv[1:]:
    mmfuse.train(config)
"""
"""Trains one config after the other, and tells what the wrapper is."""
TOLERANCES = {"fp32": 1e-3, "bf16": 0.03}
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""configs/accelerate/fsdp2.yaml, as `accelerate launch` passes it on."""


@pytest.mark.parametrize(
    ("variables", "wrapper"),
    [({}, "DistributedDataParallel"), (FSDP2, "FSDPLearner")],
    ids=["ddp", "fsdp2"],
)
def test_one_process_under_a_launcher(side, tiny, tmp_path, variables, wrapper):
    """On the CPU Accelerate wraps nothing for one process, so a rehearsal has two, of half the batch each."""
    processes = 1 if side.real else 2
    chosen = {"fp32": ["training.max_steps=6"], "bf16": ["training.max_steps=6", "training.mixed_precision=bf16"]}
    (tmp_path / "each.py").write_text(EACH)
    for name, options in chosen.items():
        launched = config_to_dict(tiny(*options, f"training.batch_size={8 // processes}", run=name))
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(launched))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    command += ["--master_addr=127.0.0.1", f"--master_port={free_port()}", str(tmp_path / "each.py")]
    where = {"ACCELERATE_USE_CPU": "false" if side.real else "true", "PYTHONWARNINGS": "ignore"}
    done = run_child(
        [*command, *(str(tmp_path / f"{name}.yaml") for name in chosen)], env={**os.environ, **where, **variables}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"wrapped as {wrapper} on {side.device.type}") == processes * len(chosen)
    for name, options in chosen.items():
        wanted = losses(train_on(side.device, tiny(*options, run=f"{name}_alone")))
        np.testing.assert_allclose(losses(tmp_path / name), wanted, rtol=TOLERANCES[name])
