"""Baselines that are trained or asked beside the concept vectors."""
