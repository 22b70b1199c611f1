"""A worker that is told to stop fails nobody: what comes meanwhile is served, or sent to another worker."""

import re
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import psutil
import requests
from conftest import Stack


def all_workers_take_calls(stack: Stack) -> bool:
    """Whether the edge has no worker on its list that it would not send a call to."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(stack.data_dir / "run" / "envoy-admin.sock"))
        connection.sendall(b"GET /clusters HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n")
        listed = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    return set(re.findall(r"::health_flags::(\S+)", listed)) == {"healthy"}


def test_workers_restarted_under_load_fail_no_call_of_the_edge(scratch: Path) -> None:
    stack = Stack(scratch / "data").start()
    answers: Counter[str] = Counter()
    done = threading.Event()

    def call() -> None:
        with requests.Session() as session:
            while not done.is_set():
                answers[session.get(f"{stack.url}/readiness", timeout=20).text] += 1

    callers = [threading.Thread(target=call) for _ in range(4)]
    try:
        for caller in callers:
            caller.start()
        assert stack.process is not None
        for number in range(2):
            (worker,) = (
                child
                for child in psutil.Process(stack.process.pid).children(recursive=True)
                if f"worker-{number}.sock" in " ".join(child.cmdline())
            )
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)
            while f"Worker {number} is back" not in "".join(stack.lines) or not all_workers_take_calls(stack):
                assert not done.wait(0.05)
    finally:
        done.set()
        for caller in callers:
            caller.join()
        stack.stop()
    assert set(answers) == {'{"status":"ok"}'}
    assert answers['{"status":"ok"}'] > 100
