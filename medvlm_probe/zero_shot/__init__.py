"""Labels from text prompts alone: prompt sets, scores, thresholds, and what the scores are worth."""
