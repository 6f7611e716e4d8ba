"""Figures for papers, drawn from finished studies."""
