"""What only shows in a process that has not imported anything yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import random, torch, unhot
from torch import nn
net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
x, y = torch.rand(60, 1, 2, 2), torch.arange(60) % 3
unhot.audit  # what importing draws is not the audit's
before = random.getstate()
unhot.audit(original=net, unlearned=net, classes=[1], test=(x, y), quick=True)
print(random.getstate() == before)
"""


@pytest.mark.process
def test_the_first_audit_of_a_process_leaves_pythons_generator_alone() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"
