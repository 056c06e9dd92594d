"""Is this dataset fit to train on? What is there, and what is wrong, before a GPU hour is spent."""

from mmfuse.data.audit.findings import AuditReport, Finding
from mmfuse.data.audit.run import audit

__all__ = ["AuditReport", "Finding", "audit"]
