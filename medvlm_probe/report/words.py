"""The words that pages use for the names in results' files."""

from __future__ import annotations

from medvlm_probe.cohort.labels import display_name

WORDS: dict[str, str] = {
    "a": "Source",
    "a_of_b": "Found of the second's",
    "accuracy": "Accuracy",
    "ace": "Adaptive ECE",
    "afterwards": "After",
    "aspect": "Width over height",
    "at_reference": "At the reference",
    "aupr_reference": "AUPR, reference",
    "aupr_site": "AUPR, site",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "b": "Second source",
    "b_of_a": "Found of the first's",
    "bbse": "By calls (BBSE)",
    "bit_depth": "Bits a channel",
    "both": "Both present",
    "brier": "Brier score ↓",
    "brier_gain": "Brier score gained",
    "bright_share": "Share of white pixels",
    "contrast": "Spread of greys",
    "calibration_confidence": "Confidence less accuracy, by label",
    "centre": "Centre",
    "chosen_on_images": "Reference images that choices are made on",
    "classifier": "Classifier two-sample test",
    "compared_images": "Reference images that are compared with",
    "coverage_error": "Coverage error ↓",
    "crowding_ratio": "Distance between a label's images and the others, over that within",
    "dark_share": "Share of black pixels",
    "directions": "Single directions (Kolmogorov-Smirnov)",
    "ece": "ECE ↓",
    "ece_kde": "KDE-ECE ↓",
    "em": "By scores (EM)",
    "energy_distance": "Energy distance",
    "exact_match": "Exact match",
    "f1": "F1",
    "facts_effects": "How far facts differ from the reference's",
    "fpr_at_95": "FPR at 95 % ↓",
    "frechet": "Fréchet distance",
    "group": "Group",
    "inter": "Between",
    "intra_negative": "Within negatives",
    "intra_positive": "Within positives",
    "iou": "IoU",
    "label_free_accuracy": "Accuracy estimated without labels",
    "label_ranking_average_precision": "LRAP",
    "label_shift_prevalence": "Share of images with each finding",
    "labels_used": "Labels used",
    "left_out": "Images left out",
    "left_out_as_the_reference_s": "Left out, as the reference has them too",
    "mce": "Largest bin's error ↓",
    "metrics": "Measured",
    "mmd": "Squared MMD",
    "n": "n",
    "n_groups": "Groups",
    "n_images": "Images",
    "n_negative": "Negatives",
    "n_positive": "Positives",
    "n_unknown": "Unknown",
    "neither": "Neither",
    "nll": "NLL ↓",
    "only_a": "Only the first",
    "only_b": "Only the second",
    "outliers_scores": "Outlier scores of both sides",
    "overconfidence": "Overconfidence",
    "p_adjusted": "p, corrected",
    "p_value": "p",
    "per_thousand": "Per 1,000 examinations",
    "performance_auroc": "AUROC by label",
    "performance_difference": "What labels lost or gained",
    "practice_errors": "Errors in 1,000 examinations",
    "practice_referral": "What referral to a reader brings",
    "ranking_loss": "Ranking loss ↓",
    "ratio": "Ratio",
    "reference": "Reference",
    "reference_people": "Reference people",
    "relevance_mass": "Relevance mass",
    "repair_gain": "What repairs gain",
    "shared_groups": "Patients in both samples, left out",
    "shift_by_label_effects": "How far images of one kind moved",
    "site": "New site",
    "truth": "Truth",
    "uniform": "Anywhere",
    "value": "Value [95 % interval]",
    "wall_seconds": "Seconds in all",
    "why_recall_curves": "Each label's recall under each transform",
    "why_score_curves": "Each label's score under each transform",
    "why_shares": "Share of the distance that each transform explains",
    "words": "Repair",
}
"""What a field is called in tables; others are shown as their own words."""

NOT_PEOPLE = frozenset({
    "n_permutations", "n_bins", "n_parameters", "n_methods", "n_labels", "n_tests", "n_transforms", "n_splits",
    "n_draws", "n_maps", "n_context", "n_features", "n_directions", "n_rules", "n_epochs", "n_runs", "n_sites",
    "n_compared", "n_computed", "n_neighbors",
})  # fmt: skip
"""Counts of other things than images and people: they may be small."""

IDENTIFIERS = frozenset({
    "image", "original_image", "patient", "study", "accession", "neighbour", "nearest", "report", "path", "file",
})  # fmt: skip
"""Fields that are shown only where they hold a pseudonym."""


def heading(name: str) -> str:
    """Return a field's name for people: its entry in `WORDS`, else its last part in plain words."""
    parts = name.split(".")
    words = [_word(part) for part in parts]
    return (
        words[0] if len(words) == 1 else f"{words[0]}: {', '.join(word[:1].lower() + word[1:] for word in words[1:])}"
    )


def _word(name: str) -> str:
    for known in (name, name.removeprefix("n_")):
        if known in WORDS:
            return WORDS[known]
    return display_name(name.removeprefix("n_"))
