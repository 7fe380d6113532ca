"""What repairs a model: linear probes, fine-tuning, losses."""
