"""Commands reuse the memory of one batch for the next, unless the user has set the allocator."""

import os
import subprocess
import sys

import pytest

PASSES = """
import resource, torch
from unhot.cli.allocator import keep_freed_memory

kept = {call}
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, groups=32))
images = torch.rand(16, 3, 160, 160)
for passes in range(5):
    if passes == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        net(images)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call: str, **variables: str) -> tuple[str, int]:
    """Return what the call returned, and how many pages of memory four passes of a net map anew."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", PASSES.format(call=call)]
    kept, mapped = subprocess.run(run, env=clean | variables, capture_output=True, text=True, check=True).stdout.split()
    return kept, int(mapped)


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="the C library is not glibc")
def test_memory_of_one_pass_is_used_again_by_the_next() -> None:
    _, anew = pages("None")
    kept, mapped = pages("keep_freed_memory()")
    assert kept == "True"
    assert mapped < anew / 4


@pytest.mark.parametrize("variable", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"])
def test_an_allocator_that_the_user_has_set_stays_as_it_is(variable: str) -> None:
    assert pages("keep_freed_memory()", **{variable: "65536"})[0] == "False"
