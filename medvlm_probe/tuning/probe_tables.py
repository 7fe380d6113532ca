"""Linear probes as tidy tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from medvlm_probe.tuning.legacy_probe import LegacyProbe
    from medvlm_probe.tuning.linear_probe import LinearProbe


def fit_table(probe: LinearProbe) -> pd.DataFrame:
    """Return how each label was fitted: the fields of `LabelFit`, one row a label."""
    return pd.DataFrame([fit.to_json() for fit in probe.fits])


def strength_table(probe: LinearProbe) -> pd.DataFrame:
    """Return the held-out loss at every strength that was tried: columns `label`, `strength`, `held_out_loss`."""
    table = pd.DataFrame(probe.held_out_loss, columns=list(probe.strengths))
    table.insert(0, "label", [fit.label for fit in probe.fits])
    return table.melt("label", var_name="strength", value_name="held_out_loss").dropna(ignore_index=True)


def curve_table(probe: LegacyProbe) -> pd.DataFrame:
    """Return the losses by epoch: columns `epoch`, `train_loss`, `validation_loss`."""
    columns = {"train_loss": probe.train_loss, "validation_loss": probe.validation_loss}
    return pd.DataFrame({"epoch": range(1, len(probe.train_loss) + 1), **columns})
