"""Concept vectors: learners of all concepts of a layer together, and the frozen bank that they yield."""
