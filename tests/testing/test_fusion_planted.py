"""The planted defects of all files together: no check of the suite for fusions goes without one."""

import test_conformance
import test_fusion_learning
import test_fusion_numeric
import test_fusion_rows
import test_fusion_state

from mmfuse.testing import fusion_checks

FILES = (test_conformance, test_fusion_learning, test_fusion_numeric, test_fusion_rows, test_fusion_state)


def test_every_check_has_a_planted_defect():
    assert {check for file in FILES for _, check, _ in file.PLANTED} == set(fusion_checks())
