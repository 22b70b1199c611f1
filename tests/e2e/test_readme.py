"""The examples of README, run as they stand there, against the shared stack's addresses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Stack

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"^### (?P<title>[^\n]+)\n(?:(?!^### ).)*?<!-- run: (?P<language>\w+) -->\n```\w+\n(?P<code>.*?)^```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


def test_all_four_ways_are_found() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize(("language", "code"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_the_example_ends_with_one_counted_event(stack: Stack, language: str, code: str) -> None:
    code = code.replace("http://127.0.0.1:8000", stack.url).replace("127.0.0.1:50051", stack.grpc_target)
    # A checkout has its .venv at the top; a test run may use another one.
    code = code.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    ran = subprocess.run([*COMMANDS[language], code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"""accepted["']?[:=]\s*1\b""", ran.stdout), ran.stdout
    assert re.search(r"""(value["']?[:=]\s*|Z )1(\.0)?\b""", ran.stdout), ran.stdout
