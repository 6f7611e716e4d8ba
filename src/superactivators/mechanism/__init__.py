"""How the tail of a concept's activations comes about: growth, parts of blocks, attention heads, ablations."""
