"""A result as a finished run of two objectives leaves it."""

from typing import Any


def make_result(test: float = 0.5, **changes: Any) -> dict[str, Any]:
    made = {
        "score": {"validation": 0.5, "test": test},
        "points": {"validation": [[1.0, 2.0]], "test": [[1.0, 2.0]]},
        "metrics": {},
        "paths": [],
        "landmarks": {},
        "curves": [{"step": [1], "near": [1.0], "far": [2.0]}],
        "positions": [],
        "cost": {"cpu_seconds": 0.1, "steps": 3, "backwards_per_step": 1, "peak_bytes": 8},
        "skipped": 0,
        "conflict_rate": None,
        "cosine": None,
    }
    return {**made, **changes}
