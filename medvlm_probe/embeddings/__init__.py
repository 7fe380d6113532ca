"""Images through a model, once: extraction, the content-keyed store, export. Importing this does not import torch."""
