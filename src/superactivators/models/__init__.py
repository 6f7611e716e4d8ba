"""Backbones: load a transformer, turn samples into tokens, resolve layers, capture block outputs, place tokens."""
