"""The hospital audit: what is asked of a new site, with which evidence, and the verdicts of a policy."""
