"""What may be said of strategies that were trained with several seeds and tested on one shared test set.

`variance.py` has the variance that all of it stands on, `scores.py` a score with its interval, `contrasts.py` the
paired difference of two strategies, `families.py` many tests at once, `power.py` the seeds that the next run needs, and
`comparison.py` puts them together.
"""

from mmfuse.benchmarking.statistics.comparison import Comparison, NamedContrast, Placed, compare
from mmfuse.benchmarking.statistics.contrasts import Contrast, paired_contrast
from mmfuse.benchmarking.statistics.families import holm, interval_levels, letter_groups
from mmfuse.benchmarking.statistics.power import SeedsNeeded, seeds_needed
from mmfuse.benchmarking.statistics.scores import strategy_score
from mmfuse.benchmarking.statistics.variance import Estimate

__all__ = [
    "Comparison",
    "Contrast",
    "Estimate",
    "NamedContrast",
    "Placed",
    "SeedsNeeded",
    "compare",
    "holm",
    "interval_levels",
    "letter_groups",
    "paired_contrast",
    "seeds_needed",
    "strategy_score",
]
