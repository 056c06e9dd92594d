"""The packages of the wheel: mmfuse, and within it the configs and manifests, which lie beside it in a checkout."""

from setuptools import find_packages, setup

BESIDE = {
    "mmfuse.configs": "configs",
    "mmfuse.configs.accelerate": "configs/accelerate",
    "mmfuse.data_manifests": "data_manifests",
}

setup(packages=[*find_packages(include=["mmfuse", "mmfuse.*"]), *BESIDE], package_dir=BESIDE)
