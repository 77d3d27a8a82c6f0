"""The tables of README.md and docs/, made from committed records."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]  # some tables are made of what stands there
