"""A real browser's EventSource: cut off, it comes back by itself and misses nothing."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from broken_stack import wait_until
from conftest import Stack, new_account
from credentials import person
from sockets import ingest, stream_token

# One way to have one, as .ci/run does: apt-get install chromium.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = os.environ.get("NIMBUS_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

# What it hears goes back to where it came from. A connection that is lost is an `error` without data.
PAGE = """<!doctype html><title>a page of an allowed origin</title><script>
const tell = (kind, id) => fetch("/heard", {method: "POST", body: JSON.stringify([kind, id])});
const source = new EventSource("STREAM");
source.addEventListener("position", (message) => tell("position", message.lastEventId));
source.addEventListener("event", (message) => tell("event", JSON.parse(message.data).seq));
source.addEventListener("error", (error) => tell(error.data ? "told" : "lost", String(source.readyState)));
</script>"""
CONNECTING = ["lost", "0"]


class _Page(BaseHTTPRequestHandler):
    """Serves `page`, and keeps in `heard` what it hears."""

    def __init__(self, page: list[str], heard: list[list[str]], *arguments: object) -> None:
        self.page, self.heard = page, heard
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(self.page[0].encode() if self.path == "/" else b"")

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b"")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(page: list[str], heard: list[list[str]]) -> Iterator[str]:
    """The origin of a page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Page, page, heard))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def browser(chromium: str, folder: Path, url: str) -> Iterator[None]:
    """A browser that shows this page."""
    # It has no pages but ours, and root, as whom CI runs, can have no sandbox.
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [chromium, *options, f"--user-data-dir={folder / 'profile'}", url],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def kill(stack: Stack, what: str, name: str) -> None:
    """Kill a process of the stack, and wait until the supervisor has it back."""
    assert stack.process is not None
    said = f"{name} is back"
    before = "".join(stack.lines).count(said)
    children = psutil.Process(stack.process.pid).children(recursive=True)
    (victim,) = (child for child in children if what in " ".join(child.cmdline()))
    victim.kill()
    wait_until(lambda: "".join(stack.lines).count(said) > before)


@contextmanager
def started(folder: Path, origin: str) -> Iterator[Stack]:
    """A stack to kill, which pages of this origin may call."""
    stack = Stack(folder / "data", {"NIMBUS_ALLOWED_ORIGINS": origin}, ("--workers", "2")).start()
    try:
        yield stack
    finally:
        stack.stop()


@pytest.mark.skipif(CHROMIUM is None, reason=f"needs a Chromium: none of {', '.join(NAMES)} is installed")
def test_a_page_that_is_cut_off_again_and_again_misses_nothing(scratch: Path) -> None:
    assert CHROMIUM is not None
    page, heard = [""], []

    def got() -> list[int]:
        return sorted(int(seq) for kind, seq in heard if kind == "event")

    with served(page, heard) as origin, started(scratch, origin) as stack:
        account = new_account(stack)
        query = {"project_id": account.project_id, "token": stream_token(stack, account, person(account))}
        page[0] = PAGE.replace("STREAM", f"{stack.url}/v1/events/stream?{urlencode(query)}")
        with browser(CHROMIUM, scratch, origin):
            wait_until(lambda: ["position", "0"] in heard)
            sent = 0
            for what, name in (("envoy.yaml", "Envoy"), ("worker-0.sock", "Worker 0"), ("worker-1.sock", "Worker 1")):
                ingest(stack, account, [{"name": "seen"}] * 3)
                sent += 3
                wait_until(lambda sent=sent: len(got()) >= sent)
                kill(stack, what, name)
                ingest(stack, account, [{"name": "missed"}] * 3)
                sent += 3
            wait_until(lambda: len(got()) >= sent)
    assert got() == list(range(1, sent + 1))
    assert CONNECTING in heard
    assert not [state for kind, state in heard if kind == "lost" and state != "0"], "it gave up"
