"""The experiments of the paper, with the paper's models and data sets or with whatever stands in for them."""
