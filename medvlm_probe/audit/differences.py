"""The difference of two independent estimates, from their own intervals."""

from __future__ import annotations

import math

from medvlm_probe.types import Estimate

METHOD = "difference of independent estimates, square-and-add of their intervals"


def difference(site: Estimate, reference: Estimate) -> Estimate:
    """Return site - reference; each bound of either side counts by how far it lies from the value.

    Args:
        site, reference: estimates on images of different patients.

    Source: Newcombe 1998, method 10; Zou and Donner 2008 (any two estimates with intervals).
    """
    value = site.value - reference.value
    low = value - math.hypot(site.value - site.low, reference.high - reference.value)
    high = value + math.hypot(site.high - site.value, reference.value - reference.low)
    n, n_groups = min(site.n, reference.n), min(site.n_groups, reference.n_groups)
    return Estimate(value, low, high, n, n_groups, METHOD, site.reliable and reference.reliable)
