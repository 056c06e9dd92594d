"""The config of a run: its keys, how values are read into them, and YAML files."""

from mmfuse.config.files import read_small, read_yaml
from mmfuse.config.keys import (
    LARGEST_SIZE,
    VOCABULARIES,
    AugmentationConfig,
    CacheConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    GenerationConfig,
    ImageEncoderConfig,
    ModalityDropoutConfig,
    TaskConfig,
    TextAugmentationConfig,
    TextEncoderConfig,
    TrainingConfig,
    schema,
)
from mmfuse.config.load import check_live, config_from_dict, config_of_layers, config_to_dict, load_config
from mmfuse.config.parsing import key, parse, read_overrides

__all__ = [
    "LARGEST_SIZE",
    "VOCABULARIES",
    "AugmentationConfig",
    "CacheConfig",
    "Config",
    "DataConfig",
    "DecoderConfig",
    "EvaluationConfig",
    "GenerationConfig",
    "ImageEncoderConfig",
    "ModalityDropoutConfig",
    "TaskConfig",
    "TextAugmentationConfig",
    "TextEncoderConfig",
    "TrainingConfig",
    "check_live",
    "config_from_dict",
    "config_of_layers",
    "config_to_dict",
    "key",
    "load_config",
    "parse",
    "read_overrides",
    "read_small",
    "read_yaml",
    "schema",
]
