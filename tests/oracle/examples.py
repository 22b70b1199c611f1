"""How long random tests of questions look."""

import os


def examples(usual: int) -> int:
    """How many examples: NIMBUS_TEST_EXAMPLES=5000 looks longer."""
    return int(os.environ.get("NIMBUS_TEST_EXAMPLES", usual))
