"""What activations look like: from scores and labels to tables, each a pure function (METHOD section 8)."""
