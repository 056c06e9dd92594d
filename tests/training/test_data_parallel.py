"""What several processes exchange: no more than a model and its rows need, and as exactly as it is computed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedDataParallelKwargs
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from mmfuse.config import ImageEncoderConfig
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.training import sharded
from mmfuse.training.build import build_model
from mmfuse.training.data_parallel import choose_data_parallel
from mmfuse.training.learner import Learner
from mmfuse.training.methods import build_method

RESNET = ImageEncoderConfig(name="resnet10t", pretrained=False, size=[32, 32])


def chosen(config, complete=True):
    table = load_table(load_manifest(config.data.manifest))
    accelerator = SimpleNamespace(ddp_handler=DistributedDataParallelKwargs(find_unused_parameters=True))
    learner = Learner(build_model(config, table), config)
    choose_data_parallel(accelerator, learner, config, build_method(config.training.method), complete)
    assert accelerator.ddp_handler.gradient_as_bucket_view
    return accelerator.ddp_handler


def test_a_graph_is_fixed_only_where_nothing_can_change_it(tiny):
    found = chosen(tiny())
    assert (found.static_graph, found.find_unused_parameters) == (True, False)


@pytest.mark.parametrize(
    "options",
    [
        ["training.modality_dropout.text=0.2"],
        ["training.accumulation=2"],
        ["training.method=fgm"],
        ["training.gradient_checkpointing=true"],
        ["training.task_weights=uncertainty"],
        ["text_encoder.frozen=true", "text_encoder.unfreeze_epoch=1"],
        ["incomplete rows"],
        ["a class of a plug-in"],
    ],
    ids=lambda options: options[0],
)
def test_else_unused_parameters_are_looked_for(tiny, options, monkeypatch):
    if options == ["a class of a plug-in"]:
        monkeypatch.setattr("mmfuse.fusion.concat.ConcatFusion.__module__", "mmfuse_plugin_other")
    own = [option for option in options if "=" in option]
    found = chosen(tiny(*own), complete=options != ["incomplete rows"])
    assert (found.static_graph, found.find_unused_parameters) == (False, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"image_encoder": RESNET}, True), ({"image_encoder": replace(RESNET, frozen=True)}, False)],
    ids=["no batch norm", "trained", "frozen for good"],
)
def test_buffers_are_sent_only_where_training_changes_them(tiny, changes, expected):
    assert chosen(replace(tiny(), **changes)).broadcast_buffers is expected


def test_buffers_of_a_type_are_sent_together(monkeypatch):
    """Some 160 messages of a ResNet-50 become two."""
    norms = nn.Sequential(*(nn.BatchNorm2d(size) for size in (3, 1, 5)))
    before = {name: buffer.clone() for name, buffer in norms.named_buffers()}
    sent = []

    def broadcast(tensor):
        sent.append(len(tensor))
        return tensor + torch.arange(len(tensor))

    monkeypatch.setattr(sharded, "broadcast", broadcast)
    sharded.share_buffers(norms)
    assert sorted(sent) == [3, 18]
    found = dict(norms.named_buffers())
    changes = torch.cat([(found[n] - before[n]).reshape(-1) for n in before if not n.endswith("tracked")])
    assert changes.tolist() == list(range(18))


def test_gradients_of_half_precision_are_summed_in_fp32():
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16)
    plugin = SimpleNamespace(mixed_precision_policy=policy)
    sharded.sum_in_fp32(SimpleNamespace(is_fsdp2=True, state=SimpleNamespace(fsdp_plugin=plugin)))
    found = plugin.mixed_precision_policy
    assert (found.param_dtype, found.reduce_dtype, found.output_dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    )


def test_what_is_collected_is_of_the_main_process_alone(monkeypatch):
    tensors = {"a": torch.ones(2, 2).t(), "b": torch.zeros(())}
    assert sharded.collect(tensors.items()).keys() == tensors.keys()
    monkeypatch.setattr(sharded, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    assert sharded.collect(tensors.items()) == {}
