"""`nimbus import` of what is no plain file: standard input, pipes, devices, names of all kinds."""

import gzip
import os
import pty
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import orjson
import psutil
import pytest
from conftest import Account, Stack
from importing import (
    SECONDS_MAX,
    at_once,
    command,
    environment_with,
    holds_once,
    outcome,
    run,
    stored,
    wait_until_stored,
    words,
    write,
)

JSONL = ("--format", "jsonl")
COUNT = 10
# More than an import holds before it stores something.
MANY = 20_000
ALL_STORED = (0, f"{COUNT} events stored, 0 there already, 0 refused.\n")
ALL_THERE = (0, f"0 events stored, {COUNT} there already, 0 refused.\n")
SHELL = (
    "cat {file} | {nimbus} -",
    "cat {file} | {nimbus} /dev/stdin",
    "gzip -c {file} | {nimbus} -",
    "{nimbus} <(zcat -f {file})",
    "{nimbus} - < {file}",
    "{nimbus} /proc/self/fd/0 < {file}",
    '{nimbus} - <<< "$(cat {file})"',
    "(printf 'read by another program\\n'; cat {file}) | (read -r; {nimbus} -)",
)


def shell(stack: Stack, account: Account, script: str, file: Path, folder: Path) -> tuple[int, str]:
    """Run a script of bash, in which `{nimbus}` is the command, in a folder."""
    nimbus = shlex.join(words(stack, "--project", account.project_id, *JSONL))
    return outcome(
        subprocess.Popen(
            ["bash", "-c", script.format(file=shlex.quote(str(file)), nimbus=nimbus)],
            env=environment_with(),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


@contextmanager
def piped(stack: Stack, account: Account, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """The command, and where to write what it reads."""
    theirs, ours = os.pipe()
    with os.fdopen(ours, "wb") as writer:
        with os.fdopen(theirs, "rb") as reader:
            running = command(stack, "--project", account.project_id, *arguments, stdin=reader)
        yield running, writer


def test_whatever_way_it_comes_it_is_stored_once(stack: Stack, account: Account, tmp_path: Path) -> None:
    file = write(tmp_path / "history", COUNT)
    expected = ALL_STORED
    for script in SHELL:
        assert shell(stack, account, script, file, tmp_path) == expected, script
        # The next one gives the same lines, by the same name.
        expected = ALL_THERE
    holds_once(stack, account.project_id, COUNT)


def test_a_socket_can_be_standard_input(stack: Stack, account: Account, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # As programs leave it which read more than one.
        theirs.setblocking(False)
        running = command(stack, "--project", account.project_id, *JSONL, "-", stdin=theirs)
        for line in write(tmp_path / "history", COUNT).read_bytes().splitlines(keepends=True):
            ours.sendall(line)
        ours.shutdown(socket.SHUT_WR)
        assert outcome(running) == ALL_STORED


def test_a_pipe_with_the_name_of_a_file_is_that_file(stack: Stack, account: Account, tmp_path: Path) -> None:
    project = ("--project", account.project_id)
    file = write(tmp_path / "history.jsonl", COUNT)
    with file.open("rb") as stdin:
        assert run(stack, *project, "--name", "history.jsonl.gz", "-", stdin=stdin) == ALL_STORED
    assert run(stack, *project, file) == ALL_THERE
    with file.open("rb") as stdin:
        assert run(stack, *project, "--name", "other.jsonl", "-", stdin=stdin) == ALL_STORED


def test_pipes_and_files_are_stored_in_the_order_given(stack: Stack, account: Account, tmp_path: Path) -> None:
    lines = write(tmp_path / "all.jsonl", 40).read_bytes().splitlines(keepends=True)
    parts = [tmp_path / name for name in "abcd"]
    for n, part in enumerate(parts):
        part.write_bytes(b"".join(lines[n * 10 : n * 10 + 10]))
    a, b, c, d = map(shlex.quote, map(str, parts))
    script = f"cat {a} | {{nimbus}} - {b} <(cat {c}) <(cat {d})"
    assert shell(stack, account, script, tmp_path, tmp_path)[1].startswith("40 events stored")
    holds_once(stack, account.project_id, 40)
    assert shell(stack, account, script, tmp_path, tmp_path)[1].startswith("0 events stored, 40 there already")


def test_equal_lines_of_two_pipes_are_two_events(stack: Stack, account: Account, tmp_path: Path) -> None:
    file = write(tmp_path / "a", 1)
    said = shell(stack, account, "{nimbus} <(cat {file}) <(cat {file})", file, tmp_path)[1]
    assert said.startswith("2 events stored, 0 there already")


def test_events_are_stored_while_their_pipe_is_open(stack: Stack, account: Account, tmp_path: Path) -> None:
    content = write(tmp_path / "history", MANY).read_bytes()
    with piped(stack, account, *JSONL, "-") as (running, writer):
        writer.write(content)
        writer.flush()
        wait_until_stored(stack, account.project_id, 8000, running)
        assert running.poll() is None
    assert outcome(running)[1].startswith(f"{MANY:,} events stored")
    holds_once(stack, account.project_id, MANY)


def test_a_csv_file_that_is_piped_keeps_its_header(stack: Stack, account: Account, tmp_path: Path) -> None:
    content = "name,ts,n\n" + "".join(f"a,2021-01-01T00:00:{n:02}Z,{n}\n" for n in range(COUNT))
    with piped(stack, account, "--format", "csv", "-") as (running, writer):
        writer.write(content.encode())
    assert outcome(running) == ALL_STORED
    assert [n for _, n in stored(stack, account.project_id)] == [str(n) for n in range(COUNT)]
    with piped(stack, account, "--name", "a.csv", "-") as (running, writer):
        writer.write(b"name,n\na,1\n")
    status, said = outcome(running)
    assert (status, "The header of a.csv is wrong: the column ts must be there." in said) == (1, True), said


def test_refused_lines_of_a_pipe_lie_in_the_current_folder(stack: Stack, account: Account, tmp_path: Path) -> None:
    (good,) = write(tmp_path / "a", 1).read_bytes().splitlines()
    file = tmp_path / "history"
    # The last line is cut, as if its writer had died.
    file.write_bytes(good + b"\n" + good[:-1])
    for script, names in (
        ("cat {file} | {nimbus} /dev/stdin", ["stdin"]),
        ("{nimbus} <(cat {file}) <(cat {file})", ["stdin", "stdin-2"]),
        ("cat {file} | {nimbus} --name data.jsonl -", ["data.jsonl"]),
    ):
        folder = tmp_path / names[-1]
        folder.mkdir()
        status, said = shell(stack, account, script, file, folder)
        sides = sorted(folder.iterdir(), key=lambda side: len(side.name))
        assert (status, [side.name for side in sides]) == (1, [f"{name}.rejected.jsonl" for name in names]), said
        assert f"{len(names)} refused: see {names[0]}.rejected.jsonl" in said
        for name, side in zip(names, sides, strict=True):
            refused = orjson.loads(side.read_bytes())
            assert (refused["file"], refused["line"], refused["lines"]) == (name, 2, 1)
            assert refused["text"].encode() == good[:-1]


def test_a_named_pipe_is_read_whenever_its_writer_comes(stack: Stack, account: Account, tmp_path: Path) -> None:
    file = write(tmp_path / "history", COUNT)
    pipes = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    for pipe in pipes:
        os.mkfifo(pipe)
    first = subprocess.Popen(["bash", "-c", f"cat {shlex.quote(str(file))} > {shlex.quote(str(pipes[0]))}"])
    running = command(stack, "--project", account.project_id, *pipes)
    # Nobody has opened and closed it before: that would have killed its writer.
    assert first.wait(SECONDS_MAX) == 0
    # One that closes it and has written nothing, and one that writes byte by byte.
    pipes[1].open("wb").close()
    with pipes[2].open("wb", buffering=0) as writer:
        for byte in gzip.compress(file.read_bytes()[: file.read_bytes().index(b"\n") + 1]):
            writer.write(bytes([byte]))
    assert outcome(running) == (0, f"{COUNT + 1} events stored, 0 there already, 0 refused.\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_an_idle_pipe_it_ends_at_once(
    stack: Stack, account: Account, tmp_path: Path, how: signal.Signals
) -> None:
    content = write(tmp_path / "history", MANY).read_bytes()
    with piped(stack, account, *JSONL, "-") as (running, writer):
        writer.write(content)
        writer.flush()
        wait_until_stored(stack, account.project_id, 16_000, running)
        children = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, how)
        status, said = outcome(running)
        count = len(stored(stack, account.project_id))
        assert status == 130
        assert "with the same input from its beginning: it stores nothing twice." in said
        assert f"{count:,} events stored, 0 there already, 0 refused." in said
        assert psutil.wait_procs(children, timeout=20)[1] == []
    holds_once(stack, account.project_id, count)
    with piped(stack, account, *JSONL, "-") as (running, writer):
        writer.write(content)
    assert f"{MANY - count:,} events stored, {count:,} there already" in outcome(running)[1]
    holds_once(stack, account.project_id, MANY)


def reader_of(running: subprocess.Popen[str]) -> psutil.Process:
    """The process that reads, once it knows what."""
    while running.poll() is None:
        for child in psutil.Process(running.pid).children():
            # The other thread is what it starts when it has been told.
            if child.num_threads() > 1:
                return child
    pytest.fail(outcome(running)[1])


def test_a_pipe_that_nobody_writes_to_can_be_left(stack: Stack, account: Account, tmp_path: Path) -> None:
    pipe = tmp_path / "a.jsonl"
    os.mkfifo(pipe)
    running = command(stack, "--project", account.project_id, pipe)
    reader = reader_of(running)
    os.killpg(running.pid, signal.SIGINT)
    status, said = outcome(running)
    assert (status, "Stopped at the beginning." in said) == (130, True)
    assert not psutil.pid_exists(reader.pid)


def test_a_reader_ends_with_the_command(stack: Stack, account: Account, tmp_path: Path) -> None:
    with piped(stack, account, *JSONL, "-") as (running, _):
        reader = reader_of(running)
        running.kill()
        running.communicate()
        assert psutil.wait_procs([reader], timeout=20)[1] == []


def test_what_can_be_read_once_is_not_given_twice(stack: Stack, account: Account, tmp_path: Path) -> None:
    file, pipe, link = write(tmp_path / "history.jsonl", COUNT), tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for given in (("-", "-"), ("-", "/dev/stdin"), (pipe, pipe), (pipe, link)):
        status, said = at_once(stack, "--project", account.project_id, *JSONL, *given)
        assert (status, "is given twice, but can be read only once." in said) == (1, True), said
    script = "{nimbus} - /dev/fd/0 < {file}; cat {file} | {nimbus} - {file} {file}"
    said = shell(stack, account, script, file, tmp_path)[1]
    assert "/dev/fd/0 is given twice" in said
    assert said.startswith(f"{2 * COUNT} events stored, {COUNT} there already")


def test_names_are_for_what_has_none(stack: Stack, account: Account, tmp_path: Path) -> None:
    file = write(tmp_path / "history.jsonl", COUNT)
    for arguments in (
        (file, "--name", "x.jsonl"),
        ("-", file, "--name", "x.jsonl", "--name", "y.jsonl"),
        ("-", "/dev/stdin", "--name", "x.jsonl", "--name", "x.jsonl"),
        (*JSONL, "-", "--name", ""),
        (*JSONL, "-", "--name", "/"),
    ):
        status, said = at_once(stack, "--project", account.project_id, *arguments)
        assert (status, "--name" in said) == (1, True), said
    status, said = at_once(stack, "--project", account.project_id, "-")
    assert (status, "Standard input: say with --format" in said) == (1, True)


def test_what_is_nothing_to_be_read_is_refused(stack: Stack, account: Account, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(tmp_path / "socket.jsonl"))
        (tmp_path / "broken.jsonl").symlink_to("gone\n.jsonl")
        (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
        (tmp_path / "folder.jsonl").mkdir()
        (tmp_path / "file").touch()
        for name, says in (
            ("socket.jsonl", "is a socket"),
            ("broken.jsonl", "it is a link to gone\\n.jsonl, which is not there"),
            ("loop.jsonl", "Too many levels of symbolic links"),
            ("folder.jsonl", "is a folder: name the files in it."),
            ("file/a.jsonl", "Not a directory"),
            ("n" * 300 + ".jsonl", "File name too long"),
        ):
            status, said = at_once(stack, "--project", account.project_id, tmp_path / name)
            assert (status, says in said) == (1, True), said
    file = write(tmp_path / "history.jsonl", COUNT)
    status, said = shell(stack, account, "{nimbus} - <&-", file, tmp_path)
    assert (status, "Standard input is closed" in said) == (1, True), said
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb"), os.fdopen(theirs, "rb") as terminal:
        status, said = run(stack, "--project", account.project_id, *JSONL, "-", stdin=terminal)
        assert (status, "Standard input is a terminal" in said) == (1, True), said
        name = os.ttyname(theirs)
        status, said = at_once(stack, "--project", account.project_id, *JSONL, name)
        assert (status, f"{name} is a terminal" in said) == (1, True), said


def test_a_device_without_anything_is_an_empty_file(stack: Stack, account: Account, tmp_path: Path) -> None:
    nothing = (0, "0 events stored, 0 there already, 0 refused.\n")
    assert run(stack, "--project", account.project_id, *JSONL, "/dev/null") == nothing
    assert run(stack, "--project", account.project_id, *JSONL, "-", stdin=subprocess.DEVNULL) == nothing


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.jsonl", "caf\\xe9.jsonl"),
        (b"two\nlines\x1b[31m.jsonl", "two\\nlines\\x1b[31m.jsonl"),
        ("[bold]\u202eü.jsonl".encode(), "[bold]\\u202eü.jsonl"),
        (b"./-", "-"),
    ],
)
def test_a_file_may_have_any_name(stack: Stack, account: Account, tmp_path: Path, name: bytes, shown: str) -> None:
    (good,) = write(tmp_path / "a", 1).read_bytes().splitlines()
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    file.write_bytes(good + b"\n{\n")
    script = "{nimbus} " + shlex.quote(os.fsdecode(name)).replace("{", "{{")
    status, said = shell(stack, account, script, file, tmp_path)
    assert (status, said) == (
        1,
        f"1 events stored, 0 there already, 1 refused: see {shown}.rejected.jsonl\n",
    )
    side = file.with_name(file.name + ".rejected.jsonl")
    assert orjson.loads(side.read_bytes())["line"] == 2
    assert shell(stack, account, script, file, tmp_path)[1].startswith("0 events stored, 1 there already")
    file.unlink()
    status, said = at_once(stack, "--project", account.project_id, *JSONL, file)
    assert (status, said) == (1, f"{tmp_path}/{shown} can't be read: No such file or directory.\n")


def test_refused_lines_can_go_to_a_pipe(stack: Stack, account: Account, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_bytes(b"{\n")
    pipe = tmp_path / "side"
    os.mkfifo(pipe)
    status, said = run(stack, "--project", account.project_id, "--rejected", pipe, file)
    assert (status, "side, for what is refused, can't be written" in said) == (1, True), said
    read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(read, "rb") as reader:
        status, said = run(stack, "--project", account.project_id, "--rejected", pipe, file)
        assert (status, orjson.loads(reader.read())["text"]) == (1, "{"), said
    # What comes in can't be overwritten, by whatever name.
    with file.open("rb") as stdin:
        arguments = ("--project", account.project_id, *JSONL, "--rejected", file, "-")
        assert "can't be imported in the same run" in run(stack, *arguments, stdin=stdin)[1]
    assert file.read_bytes() == b"{\n"


def test_a_bar_shows_what_was_read_of_a_pipe(stack: Stack, account: Account, tmp_path: Path) -> None:
    content = write(tmp_path / "history", MANY).read_bytes()
    ours, theirs = pty.openpty()
    shown = bytearray()

    def watch() -> None:
        try:
            while chunk := os.read(ours, 65536):
                shown.extend(chunk)
        except OSError:
            pass  # the terminal is closed

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with os.fdopen(theirs, "wb") as terminal:
            running = subprocess.Popen(
                words(stack, "--project", account.project_id, "--name", "[b]pipe\n.jsonl", "-"),
                env=environment_with(TERM="xterm"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=terminal,
            )
        said, _ = running.communicate(content, timeout=SECONDS_MAX)
    finally:
        watching.join(SECONDS_MAX)
        os.close(ours)
    assert said.startswith(f"{MANY:,} events stored".encode())
    text = shown.decode()
    assert "[b]pipe\\n.jsonl" in text
    assert "MB" in text
    assert "%" not in text


def test_lines_that_hang_on_a_quote_are_counted_and_the_person_is_told(
    stack: Stack, account: Account, tmp_path: Path
) -> None:
    row = "a,2021-01-01T00:00:00Z,{}\n"
    good = "".join(row.format(n) for n in range(COUNT))
    file = tmp_path / "history.csv"
    file.write_text("name,ts,n\n" + good + row.format('"x') + row.format("bad") * 4005)
    status, said = run(stack, "--project", account.project_id, file)
    assert status == 1
    assert f"{COUNT} events stored, 0 there already, 1 refused (4,006 lines): see {file}.rejected.jsonl" in said
    assert f"{file}: The quote that opens a cell on line 12 is never closed" in said
    assert "lines 12 to 4,017 are refused. Close it, and run the same command again." in said
    file.write_text(file.read_text().replace('"x', "x"))
    status, said = run(stack, "--project", account.project_id, file)
    assert (status, said) == (0, f"4,006 events stored, {COUNT} there already, 0 refused.\n")
