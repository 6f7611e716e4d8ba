"""Activations of tokens against concept vectors, and how a sample's activations become one score."""
