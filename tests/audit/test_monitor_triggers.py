"""What a monitor says of a policy's triggers: its own alarms and shares of outliers, and nothing it did not measure."""

from __future__ import annotations

import numpy as np
import pytest

from medvlm_probe.audit.monitor import Arrivals, Monitor, batch_record, new_header
from medvlm_probe.audit.monitor_triggers import seen_triggers
from medvlm_probe.audit.policy import parse_policy
from medvlm_probe.shift.share_sequence import log_share_capital

POLICY = parse_policy(
    "[[rule]]\nrule = 'overconfidence <= 0.5'\n"
    + "".join(
        f'[[trigger]]\nwhen = "{when}"\ndo = "stop"\n'
        for when in (
            "alarm by outliers",
            "outlier share > 0.3",
            "outlier share above this audit's",
            "recall(edema) < 0.5",
        )
    ),
    "p",
)


def arrivals(name: str, scores: np.ndarray) -> Arrivals:
    n = len(scores)
    return Arrivals(
        tuple(f"{name} image {k}" for k in range(n)),
        tuple(f"{name} patient {k}" for k in range(n)),
        {"outliers": scores, "calibration": np.full(n, np.nan)},
        np.full((n, 1), np.nan),
    )


def test_a_monitor_sees_its_alarms_and_shares_above_the_policys_level() -> None:
    reference = np.linspace(0, 1, 99)
    header = new_header(arrivals("reference", reference), {"alpha": 0.05, "seed": 0})
    start = Monitor((header,))
    assert [trigger.met for trigger in seen_triggers(POLICY, start)] == [False, False, None, None]
    record = batch_record(start, arrivals("new", np.tile([0.5, 2.0], 60)), in_order=True)
    monitored = Monitor((header, record))
    alarm, share, derived, recall = seen_triggers(POLICY, monitored)
    assert alarm.met == (monitored.alarm_after("outliers") is not None)
    assert share.met
    assert share.value == pytest.approx(0.5)
    above = np.tile([False, True], 60)
    assert share.met_after == int(np.flatnonzero(log_share_capital(above, 0.3) >= np.log(20))[0]) + 1
    assert derived.met is recall.met is None
    assert "audit" in derived.reason
    assert "audit" in recall.reason


def test_without_scores_of_a_reference_a_share_cannot_be_told() -> None:
    header = new_header(None, {"alpha": 0.05, "seed": 0})
    assert seen_triggers(POLICY, Monitor((header,)))[1].met is None
