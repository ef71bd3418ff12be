"""The lab on a stock Debian kernel with the unified cgroup hierarchy, whatever this machine has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VMRUN = Path(__file__).with_name("vmrun")
SCRIPT = Path(__file__).with_name("one_node.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="the emulated machine needs root")
def test_a_pod_runs_below_the_labs_cgroup_and_nothing_is_left() -> None:
    command = [
        str(VMRUN),
        "--cpus",
        "2",
        "--mem",
        "4096",
        "--timeout",
        "1200",
        "--",
        sys.executable,
        str(SCRIPT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen["groups"]) == 1, "there is one hierarchy"
    assert seen["groups"][0].startswith("0::/hn-vm/node1.pods/")
    assert seen["left"] == []
