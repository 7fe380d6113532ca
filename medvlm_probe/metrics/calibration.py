"""Calibration: whether probabilities mean what they say. To import from one place.

`probabilities` of shape (n,) are P(y = 1), held against the frequency of positives; of shape (n, K) the top label's is
held against how often it is right, also for K = 2: the two differ. Plain values are floats; `calibration_estimates` and
`multilabel_calibration` give debiased values, intervals, and what a perfectly calibrated model of that size shows.
"""

from medvlm_probe.metrics.calibration_bins import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)
from medvlm_probe.metrics.calibration_debiased import debiased_calibration_error
from medvlm_probe.metrics.calibration_estimates import CalibrationEstimate, calibration_estimates
from medvlm_probe.metrics.calibration_kernel import kde_bandwidth, kde_calibration_error, smooth_calibration_error
from medvlm_probe.metrics.calibration_multilabel import MultilabelCalibration, multilabel_calibration
from medvlm_probe.metrics.calibration_null import calibrated_outcomes, within_group_correlation
from medvlm_probe.metrics.calibration_problem import BINARY_METRICS, CLASS_METRICS
from medvlm_probe.metrics.calibration_scores import (
    BrierParts,
    Overconfidence,
    brier_decomposition,
    brier_score,
    calibration_in_the_large,
    negative_log_likelihood,
    overconfidence,
    risk_coverage_area,
    risk_coverage_curve,
)
from medvlm_probe.metrics.calibration_tables import ReliabilityBins, confidence_histogram, reliability_bins

__all__ = [
    "BINARY_METRICS",
    "CLASS_METRICS",
    "BrierParts",
    "CalibrationEstimate",
    "MultilabelCalibration",
    "Overconfidence",
    "ReliabilityBins",
    "adaptive_calibration_error",
    "brier_decomposition",
    "brier_score",
    "calibrated_outcomes",
    "calibration_estimates",
    "calibration_in_the_large",
    "classwise_calibration_error",
    "confidence_histogram",
    "debiased_calibration_error",
    "expected_calibration_error",
    "kde_bandwidth",
    "kde_calibration_error",
    "maximum_calibration_error",
    "multilabel_calibration",
    "negative_log_likelihood",
    "overconfidence",
    "reliability_bins",
    "risk_coverage_area",
    "risk_coverage_curve",
    "smooth_calibration_error",
    "within_group_correlation",
]
