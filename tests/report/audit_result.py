"""What an audit's JSON looks like, made by hand: every question, small cells, and names that try to break out."""

from __future__ import annotations

from typing import Any

HOSTILE_SITE = "</script><script>alert(1)</script>"
HOSTILE_LABEL = "=cmd()|' /C calc'!A0"
QUOTED = "\"'><img src=x onerror=alert(1)>"

SVG = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="510pt" height="150pt" viewBox="0 0 510 150"
     xmlns="http://www.w3.org/2000/svg" version="1.1">
 <title>AUROC of five tests. A bar is a 95 % interval.</title>
 <metadata><a href="http://example.org/x"/></metadata>
 <defs><style type="text/css">*{stroke-linejoin: round; stroke-linecap: butt}</style>
  <clipPath id="p1"><rect x="0" y="0" width="510" height="150"/></clipPath></defs>
 <g id="figure_1"><path id="patch_2" d="M 0 150 L 510 150 L 510 0 L 0 0 z" style="fill: #ffffff"/>
  <g clip-path="url(#p1)"><path d="M 20 130 L 490 20" style="fill: none; stroke: #0072b2; stroke-width: 2"/></g>
  <defs><path id="glyph" d="M 0 0 L 10 10 L 0 10 z"/></defs>
  <use xlink:href="#glyph" x="50" y="50" style="fill: #d55e00"/></g>
</svg>
"""


def estimate(value: float | None, half: float = 0.05, n: int = 180, n_groups: int = 150, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "n": n, "n_groups": n_groups, "method": "by hand", **more}


def p_values(p_value: float) -> dict[str, Any]:
    return {"statistic": 0.1, "p_value": p_value, "p_adjusted": min(1.0, 5 * p_value)}


LABELS = {"cardiomegaly": "Cardiomegaly", "pleural_effusion": "Pleural effusion", "hernia": HOSTILE_LABEL}


def verdict(rule: str, outcome: str, value: float | None, n: int | None, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.04, value + 0.04)
    return {
        "rule": rule,
        "verdict": outcome,
        "value": value,
        "low": low,
        "high": high,
        "n_groups": n,
        "planned": 40,
        "confidence": 0.95,
        "label": None,
        "reason": "It is at most 0.752 with 95 % confidence."
        if outcome == "fail"
        else "Fewer than 10 people carry it.",
        "because": "A frequent finding that a tool must not miss.",
        "method": "Wilson",
        **more,
    }


def cell(side: str, label: str, *, by: str = "all", group: str = "", auroc: float | None = 0.81) -> dict[str, Any]:
    shown = auroc is not None
    return {
        "side": side,
        "by": by,
        "group": group,
        "label": label,
        "n_people": 150 if shown else None,
        "n_positive": 61 if shown else None,
        "n_negative": 119 if shown else None,
        "n_unknown": 0 if shown else None,
        "threshold": 0.31 if shown else None,
        "recall": estimate(0.712, 0.11, 61, 52) if shown else None,
        "specificity": estimate(0.834, 0.06, 119, 100) if shown else None,
        "auroc": estimate(auroc) if shown else None,
        "difference_to_reference": {"auroc": estimate(-0.07)} if shown and side == "site" else {},
        "not_shown": "" if shown else "fewer than 10 people with or without it",
    }


def audit_result() -> dict[str, Any]:
    """Return a new copy of a whole audit's JSON."""
    sentences = {
        "facts": "Facts that differ from the reference: width (median 2,048 at the reference, 1,024 here).",
        "shift": "The images are different from the reference's: AUROC 0.83 [0.79, 0.87].",
        "what_moved": "The look of the images moved.",
        "label_shift": "No finding is shown to be more or less frequent than at the reference.",
        "why": "Not answered: it was not asked.",
        "outliers": "12 % [8, 17] of the images are unlike anything at the reference, where 5 % are expected.",
        "performance": "AUROC is lower than at the reference for 1 of 2 labels.",
        "calibration": "Overconfident at the site by 9 points [+5, +13].",
    }
    methods = [("mmd", 0.041, 0.008), ("classifier", 0.83, 0.04), ("energy", 0.06, 0.01), ("frechet", 0.2, 0.05)]
    return {
        "overall": "fail",
        "policy": "Proof of concept",
        "verdicts": [
            verdict("no shift beyond 0.02 by mmd", "fail", 0.041, 150),
            verdict("recall(cardiomegaly) >= 0.80 with 95 % confidence", "fail", 0.712, 52),
            verdict("recall(pneumothorax) >= 0.70", "not enough evidence", None, None),
            verdict("ece <= 0.10", "pass", 0.05, 150),
        ],
        "sentences": sentences,
        "questions": {"shift": "Has the data moved?"},
        "traps": [{"kind": "children", "sentence": "All patients are under 18.", "labels": [], "estimate": None}],
        "facts": {
            "sentence": sentences["facts"],
            "n_sampled": [200, 180],
            "tests": [
                {
                    "fact": "width",
                    "kind": "numeric",
                    "effect": estimate(0.9),
                    "difference": estimate(-2.0),
                    "shares": {},
                    "means": [2001.0, 1020.0],
                    "p_value": 1e-4,
                    "p_adjusted": 5e-4,
                },
                {
                    "fact": "view",
                    "kind": "categorical",
                    "effect": estimate(0.3),
                    "difference": estimate(None),
                    "shares": {"AP": [0.2, 0.65], "PA": [0.8, 0.35]},
                    "means": [None, None],
                    "p_value": 1e-4,
                    "p_adjusted": 5e-4,
                },
            ],
            "medians": {"width": [2048.0, 1024.0]},
            "absent": ["scanner"],
        },
        "shift": {
            "sentence": sentences["shift"],
            "tests": [
                {
                    "test": name,
                    **p_values(1e-4),
                    "effect": estimate(value, half),
                    "null": [0.0, 0.001, 0.002],
                    "n_permutations": 9999,
                    "settings": "RBF kernel",
                    "seconds": 1.2,
                }
                for name, value, half in methods
            ],
            "n_images": [400, 180],
            "n_groups": [300, 150],
            "n_shared_groups": 3,
            "n_left_out": 4,
            "nuisance_probes": [
                {
                    "fact": "view",
                    "category": "AP",
                    "n_images": 117,
                    "n_groups": 100,
                    "n_others": 63,
                    "auroc": estimate(0.95, 0.03),
                    "balanced_accuracy": estimate(0.9, 0.04),
                }
            ],
            "most_unusual_cosines": [0.42, 0.45],
        },
        "what_moved": {
            "sentence": sentences["what_moved"],
            "shift": "covariate",
            "reference_prevalence": estimate(0.62),
            "site_prevalence": estimate(0.58),
            "overall": p_values(1e-4),
            "remaining": p_values(1e-4),
            "effective_share": 0.41,
        },
        "why": None,
        "outliers": {
            "sentence": sentences["outliers"],
            "share_beyond": estimate(0.12, 0.045),
            "expected_share": 0.05,
            "listed_by": "knn",
            "methods": [
                {"method": name, "auroc": estimate(0.7), "fpr_at_95": estimate(0.8), "site_share": 0.31}
                for name in ("msp", "energy", "mahalanobis", "knn")
            ],
            "left_out": {},
        },
        "calibration": {
            "sentence": sentences["calibration"],
            "rows": [
                {
                    "side": side,
                    "probabilities": "calibrated at the reference",
                    "labels": list(LABELS),
                    "pooled": {m: estimate(0.1, 0.03) for m in ("ece", "brier", "nll", "overconfidence")},
                    "per_label": [{"label": "cardiomegaly", "ece": estimate(0.1), "overconfidence": estimate(0.05)}],
                }
                for side in ("reference", "site")
            ],
        },
        "sample_sizes": {
            "labels": [
                {
                    "label": "cardiomegaly",
                    "expected_recall": 0.82,
                    "positives_needed": 227,
                    "images_needed": 1120,
                    "half_width": 0.05,
                    "n_positive": 61,
                    "detectable_fall": 0.15,
                    "detectable_rise": None,
                    "power": 0.8,
                }
            ]
        },
        "practice": {
            "labels": [
                {
                    "label": "cardiomegaly",
                    "missed": estimate(58.6, 21.0),
                    "false_alarms": estimate(132.0, 40.0),
                    "called": 320.1,
                    "prevalence": estimate(0.2),
                    "errors_from": "site labels",
                    "prevalence_from": "site labels",
                    "referral": {
                        "least_recall": 0.95,
                        "chosen_on_reference": {"recall": estimate(0.9), "error": estimate(0.1)},
                        "at_site": None,
                        "referred_at_site": estimate(0.31),
                    },
                }
            ]
        },
        "repair": None,
        "label_shift": [
            {
                "label": label,
                "reference": estimate(0.3),
                "bbse": estimate(0.28),
                "em": estimate(0.29),
                "truth": estimate(0.33) if label == "cardiomegaly" else None,
                "misfit": 0.1,
                "misfit_test": p_values(0.2),
                "assumption": "usable",
            }
            for label in LABELS
        ],
        "label_free": [
            {
                "label": "cardiomegaly",
                "metric": "accuracy",
                "method": "average_confidence",
                "estimate": estimate(0.8),
                "truth": estimate(0.78),
                "holds": True,
            }
        ],
        "performance": [
            cell("reference", "cardiomegaly", auroc=0.88),
            cell("site", "cardiomegaly"),
            cell("reference", "hernia"),
            cell("site", "hernia", auroc=None),
            cell("site", "cardiomegaly", by="site", group=HOSTILE_SITE),
            cell("site", "cardiomegaly", by="view", group=QUOTED),
        ],
        "worst_groups": [],
        "labels_left_out": {"label_shift": {"pleural_effusion": "fewer than 10 people with it at the reference"}},
        "skipped": {"why": "it was not asked."},
        "words": dict(LABELS),
        "counts": {"reference_images": 400, "site_images": 180},
        "notes": ["The reference was split into two halves by patient."],
        "seconds": {"shift": 4.1},
        "provenance": {
            "site": {"name": HOSTILE_SITE, "fingerprint": "ab" * 32},
            "reference": {"name": "iu_xray", "fingerprint": "cd" * 32},
            "model": {"name": "dino-minilm", "fingerprint": "ef" * 32},
            "versions": {"python": "3.11.7", "medvlm-probe": "0.1.0"},
            "seeds": {"audit": 0},
        },
        "cards": {
            "Data card: reference": {
                "name": "iu_xray",
                "title": "Indiana University chest radiographs",
                "licence": "CC BY-NC-ND 4.0",
                "known_traps": ["Labels come from reports.", "48 % of the files are inverted."],
                "body": "not for the page",
                "manifest": "/data/secret/manifest.csv",
            }
        },
    }
