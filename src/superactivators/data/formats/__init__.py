"""Readers of other people's formats: each turns original files into a data set, without copying them."""
