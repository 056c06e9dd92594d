"""Metrics need no torch: what a target is, which is below data, is scored by them."""

import subprocess
import sys

CODE = """
import sys, pkgutil, importlib
import mmfuse.metrics
for found in pkgutil.walk_packages(mmfuse.metrics.__path__, "mmfuse.metrics."):
    importlib.import_module(found.name)
from mmfuse.metrics.reports import score_reports
score_reports("chest_rules", ["No effusion."], ["Effusion."], ["a"], 0)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_no_module_of_metrics_imports_torch():
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
