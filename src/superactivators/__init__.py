"""Reliable concept detection in transformers from the tail of token activations."""
