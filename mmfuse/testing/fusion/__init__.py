"""The checks of fusion strategies, plainest message first; `docs/add_a_fusion.md` has them as a table.

Each check exists because public code fails it, and is ranked in benchmarks all the same.
"""

from mmfuse.fusion import FUSIONS
from mmfuse.testing.fusion.declared import interaction, modalities, reads, unused_modality
from mmfuse.testing.fusion.learning import initialisation, parameters, training
from mmfuse.testing.fusion.macs import macs
from mmfuse.testing.fusion.numeric import bfloat16, extremes, gradient
from mmfuse.testing.fusion.protocol import protocol
from mmfuse.testing.fusion.rows import batch, lengths, missing_modality, padding
from mmfuse.testing.fusion.state import checkpoint, memory, repeatable, state_dict
from mmfuse.testing.fusion.uses import captioning, export
from mmfuse.testing.suite import Suite

SUITE = Suite(FUSIONS)

for _check in (
    *(protocol, parameters, repeatable, checkpoint, state_dict, training, initialisation),
    *(modalities, unused_modality, interaction, reads, batch, padding, lengths, missing_modality, memory),
    *(bfloat16, extremes, gradient, export, captioning, macs),
):
    SUITE.check(_check)
