"""Target models: the recommenders that are trained on full and on pruned tables, and compared."""
