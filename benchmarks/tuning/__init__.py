"""Tuners on trainings whose front over all epochs is known."""
