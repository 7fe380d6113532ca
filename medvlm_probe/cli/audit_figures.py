"""The figures of an audit, drawn from its tables; a figure's name begins with its question's key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from medvlm_probe.audit.evidence import AuditEvidence


def audit_figures(found: AuditEvidence, tables: Mapping[str, pd.DataFrame], note: str = "") -> dict[str, str]:
    """Return name to SVG."""
    return {}
