"""Logs are for operators: structured, and without what people sent."""

import json
import subprocess
import sys

REPEAT = """
import logging
from nimbus_server.settings import load
from nimbus_server.telemetry import logs
logs.configure(load())
pool = logging.getLogger("psycopg.pool")
for _ in range(3):
    pool.warning("error connecting in %r: %s", "pool-1", "refused")
pool.warning("error connecting in %r: %s", "pool-1", "starting up")
logs.REPEAT_SECONDS = 0
pool.warning("error connecting in %r: %s", "pool-1", "refused")
"""
FAIL = """
import logging, structlog
from nimbus_server.settings import load
from nimbus_server.telemetry import logs
logs.configure(load())
def register(password):
    return 1 / 0
try:
    register("hunter2")
except ZeroDivisionError:
    structlog.get_logger().exception("defect", request_id="r1")
logging.getLogger("a.library").warning("something of %s", "theirs")
structlog.get_logger().debug("not at this level")
"""


def test_a_defect_is_logged_with_its_traceback_but_without_local_variables() -> None:
    ran = subprocess.run([sys.executable, "-c", FAIL], capture_output=True, text=True, check=True)
    defect, library = (json.loads(line) for line in ran.stderr.splitlines())
    assert defect["request_id"] == "r1"
    assert "ZeroDivisionError" in json.dumps(defect["exception"])
    assert "register" in json.dumps(defect["exception"])
    assert "hunter2" not in ran.stderr
    assert (library["level"], library["event"]) == ("warning", "something of theirs")


def test_what_the_pool_says_again_and_again_is_logged_now_and_then() -> None:
    ran = subprocess.run([sys.executable, "-c", REPEAT], capture_output=True, text=True, check=True)
    said = [json.loads(line)["event"].rpartition(": ")[2] for line in ran.stderr.splitlines()]
    assert said == ["refused", "starting up", "refused"]
