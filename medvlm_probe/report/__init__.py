"""Studies and reports: everything that puts several analyses on one page."""
