"""The page of a run, `RUN/report.html`: what was trained on what, how good it is and against what."""

from mmfuse.evaluation.run_page.measure import measure_run
from mmfuse.evaluation.run_page.write import count_parameters, keep_measured, monitored_of, write_page

__all__ = ["count_parameters", "keep_measured", "measure_run", "monitored_of", "write_page"]
