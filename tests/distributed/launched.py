"""Scripts as a user starts them: by python, or by torchrun on several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(script: Path, ranks: int, *arguments: str, restarts: int = 0, **environment: str) -> tuple[str, str]:
    """What a script prints, on standard output and on standard error."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    torchrun += ["--max-restarts", str(restarts)]
    done = subprocess.run(
        [sys.executable, *(torchrun if ranks > 1 else []), str(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-9000:]
    return done.stdout, done.stderr
