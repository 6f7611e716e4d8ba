"""Labelled samples: containers, readers of the open folder formats, built-in demo sets, splits."""
