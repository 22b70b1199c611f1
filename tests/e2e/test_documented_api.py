"""The documented REST API, as a legacy client uses it."""

import subprocess
import sys
from pathlib import Path

from conftest import Stack


def test_a_legacy_client_finds_everything_as_documented(stack: Stack) -> None:
    client = Path(__file__).with_name("documented_api.py")
    ran = subprocess.run([sys.executable, client, stack.url], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].endswith(" 0 failed")
