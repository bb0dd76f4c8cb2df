"""How much is looked at together, one name for each size."""

CHUNK = 65_536
"""Columns, or entries, looked at together: what is copied, or cast, at a time, and what is not worth a copy beside
others."""

SEGMENT = 1_024
"""Columns in one float32 matrix product: short sums, 1e-7 of the norms at most; they are added in float64."""
