"""Evaluation: what recommenders trained on pruned data lose, and what their training costs."""
