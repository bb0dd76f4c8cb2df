"""Unlearning as two-objective optimisation: fictitious authors, tiny language models, losses and metrics."""
