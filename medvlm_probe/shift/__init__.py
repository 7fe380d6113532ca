"""Two-sample tests, label shift, outlier scores: whether a site differs from the reference, and in what."""
