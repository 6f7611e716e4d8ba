"""Thresholds from the in-concept tail, detection and its baselines, metrics with intervals, direct localisation."""
