"""An attribution in one plain sentence: what most of a site's distance is, or that it is not acquisition."""

from __future__ import annotations

from medvlm_probe.cohort.acquisition import ACQUISITIONS, parse_steps
from medvlm_probe.shift.attribution import Attribution, Verdict
from medvlm_probe.types import Estimate

ALTERNATIVE = 0.2
"""A transform that at least this share of the halves of the patients chooses is named beside the most frequent one."""


PARTS = {
    "best": "The transform that fits best",
    "mix": "Another mix of the reference's patients",
    "both": "Both together",
    "transform_adds": "The transform, beyond such a mix",
    "mix_adds": "Such a mix, beyond the transform",
    "beats_mix": "The transform, less such a mix alone",
    "pair_adds": "A second transform, beyond one",
}
"""What an attribution's shares are, for people."""


def parts_of(found: Attribution) -> dict[str, Estimate]:
    """Return an attribution's cross-fitted shares by their name in `PARTS`."""
    pair = {} if found.pair_adds is None else {"pair_adds": found.pair_adds}
    return {**vars(found.parts), **pair}


def words_of(name: str) -> str:
    """Return a transform as people read it: `lower resolution (96 px), then more blur (1 px)`."""
    return ", then ".join(step.words for step in parse_steps(name))


def family_words(family: str) -> str:
    """Return a family of transforms as people read it: `lower resolution and more blur`."""
    return " and ".join(ACQUISITIONS[name].words for name in family.split(" + "))


def attribution_sentence(found: Attribution) -> str:
    """Return why the site moved, with the shares that it rests on."""
    best, mix, parts = percent(found.parts.best), percent(found.parts.mix), found.parts
    closest = words_of(found.best)
    why = reason(found)
    much = "Most" if parts.best.low >= 0.5 else "Part"
    mixed = f"another mix of the reference's own patients explains {mix}"
    acquisition = f"{much} of the distance is {why}: it explains {best}; the closest setting is {closest}."
    if " + " in families_named(found)[0] and found.pair_adds:
        acquisition += f" Of this, the second change adds {percent(found.pair_adds)}."
    sentences: dict[Verdict, str] = {
        "no distance": "The site cannot be told from the reference, so there is no distance to explain.",
        "acquisition": acquisition,
        "acquisition and other patients": f"Acquisition and other patients: beyond another mix of the reference's own "
        f"patients, {why} explains {percent(parts.transform_adds)} of the distance; beyond a transform, such a mix "
        f"explains {percent(parts.mix_adds)}; both together {percent(parts.both)}.",
        "other patients": "Not acquisition: other patients. Another mix of the reference's own patients, each seen as "
        f"the reference sees them, explains {mix} of the distance; the best transform ({closest}) explains {best}, and "
        "nothing certain beyond that mix.",
        "not these transforms": f"Not acquisition, as far as these transforms go: the best of them ({closest}) "
        f"explains {best} of the distance, and {mixed}. The rest is patients that the reference hardly has, or an "
        "acquisition that no transform here imitates.",
        "not enough evidence": f"Not enough evidence: the best transform ({closest}) explains {best} of the distance, "
        f"{mixed}.",
    }
    if found.verdict == "no distance":
        return sentences[found.verdict]
    return f"{sentences[found.verdict]} {_control(found)}"


def _control(found: Attribution) -> str:
    """Return what the search finds where there is nothing to find."""
    if found.chance <= 0:
        return "In the control, between two halves of the reference, every transform only leads away."
    return (
        f"In the control, between two halves of the reference, transforms seem to explain {100 * found.chance:.0f} %."
    )


def percent(share: Estimate) -> str:
    """Return `62 % [55, 70]`."""
    value, low, high = (f"{100 * number:.0f}".replace("-", "\u2212") for number in (share.value, share.low, share.high))
    return f"{value} % [{low}, {high}]"


def reason(found: Attribution) -> str:
    """Return which transforms the halves of the patients choose: `lower resolution or more blur`."""
    return " or ".join(family_words(name) for name in families_named(found))


def families_named(found: Attribution) -> tuple[str, ...]:
    """Return the families behind `reason`: the most frequent choice, and others that at least a fifth choose."""
    shares = found.families_with_mix if found.verdict == "acquisition and other patients" else found.families
    names = sorted(shares, key=lambda family: -shares[family])
    return tuple(name for name in names if name == names[0] or shares[name] >= ALTERNATIVE)
