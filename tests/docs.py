"""Runs the samples of README.md and docs/, and writes down or compares what they print. Called by tests/docs.sh.

A sample is a console block between two markers:

    <!-- output: text
    $ rstlab-upstream &
    -->
    ```console
    $ curl http://127.0.0.1:8000/
    what it printed
    ```
    <!-- end -->

Commands in the first marker run first and are not shown. `$` is a user without privileges, `#` is root: a sample with
`#` is left out, and counted as not run, where this is not root or where the kernel cannot be asked. A command that ends
with `&` runs until the sample ends; the next command waits until it listens or has printed something. With "continued"
in its marker a sample has the directory and the running programs of the sample before.

The comparison goes by words, so that line breaks and padding don't count. Any number, time or address is equal to any
other, and to "-". `text` wants the same words in the same order. `words` wants every word of the page to be printed, in
any order, but for short ones ("or", "of"): it is for outputs in which the scheduler decides what comes first.
"""

import fcntl
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

SAMPLE = re.compile(
    r"(?P<marker><!-- output: (?P<kind>text|words)(?P<continued>, continued)?(?P<hidden>\n.*?)?\s*-->\n)"
    r"```console\n(?P<shown>.*?)```\n<!-- end -->\n",
    re.DOTALL,
)
COMMAND = re.compile(r"^([$#]) ((?:.*\\\n)*.*)\n?", re.MULTILINE)
NUMBER = re.compile(r"-?nan|\d+(?:[,.:T-]\d+)*(?:Z|[num]?s\b|[KMG]B\b)?")
NOBODY = 65534
SECONDS = 60


class Session:
    """A directory for the commands of a sample, and the programs in the background."""

    def __init__(self, programs):
        self.directory = tempfile.TemporaryDirectory()
        os.chmod(self.directory.name, 0o777)
        self.running = []
        # Every process of the session holds the writing end: the reading end ends when the last process has.
        self.alive, self.held = os.pipe()
        venv = pathlib.Path(".venv/gunicorn-27.0.1/bin").absolute()
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}:{venv}",
            "PEERS": str(pathlib.Path("tests/peers").absolute()),
            "LANG": "C.UTF-8",
        }

    def run(self, who, command):
        """Runs a command to its end, or starts it; returns what it printed."""
        # README.md shows how to build and run at once; the programs are built already.
        command = command.replace("cargo run --release --", "rstlab")
        argv = ["bash", "-c", command.rstrip("& ")]
        if who == "$" and os.geteuid() == 0:
            argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *argv]
        printed = tempfile.TemporaryFile(mode="w+")
        before = listening()
        process = subprocess.Popen(
            argv,
            cwd=self.directory.name,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[self.held],
        )
        self.running.append(process)
        if command.endswith("&"):
            self.wait(command, lambda: listening() > before or os.fstat(printed.fileno()).st_size > 0)
            return ""
        self.wait(command, lambda: process.poll() is not None)
        printed.seek(0)
        return re.sub(" +$", "", printed.read(), flags=re.MULTILINE)

    def wait(self, command, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {SECONDS} s: {command}")
            time.sleep(0.02)

    def close(self):
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        os.close(self.held)
        ended, _, _ = select.select([self.alive], [], [], SECONDS)
        os.close(self.alive)
        self.directory.cleanup()
        if not ended:
            raise TimeoutError(f"a program of the sample still runs {SECONDS} s after SIGTERM")


def listening():
    """How many sockets listen in this network namespace."""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[3] == "0A" for line in lines)


def words(text):
    """The words of an output: without what varies from run to run, and without lines and padding."""
    text = NUMBER.sub("N", text)
    return [re.sub("[─═]+", "─", "N" if word == "-" else word.rstrip(".,;:")) for word in text.split()]


def difference(kind, page, found):
    """The first difference between the page and the printed text; None if they agree."""
    page, found = words(page), words(found)
    if kind == "words":
        missing = [word for word in dict.fromkeys(page) if word not in found and not re.fullmatch("[a-z]{1,3}", word)]
        return f"not printed: {' '.join(missing)}" if missing else None
    if page == found:
        return None
    at = next((i for i, pair in enumerate(zip(page, found)) if pair[0] != pair[1]), min(len(page), len(found)))
    near = slice(max(at - 5, 0), at + 10)
    return f"the page says: {' '.join(page[near])}\n  printed: {' '.join(found[near])}"


def can_ask_the_kernel():
    """Whether this is root with tracefs, which is mounted here if the namespace does not have it."""
    if os.geteuid() != 0:
        return False
    tracing = "/sys/kernel/tracing"
    if not os.path.exists(f"{tracing}/instances"):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", tracing])
    return os.access(f"{tracing}/instances", os.W_OK)


def loopback_up():
    """A new network namespace has its loopback interface down."""
    up_and_running = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, up_and_running)


def run_samples(page, programs, kernel):
    """Runs the samples of a page; returns its text with their outputs, what differs, how many ran, how many did not."""
    text = page.read_text()
    session, kept, wrong, ran, left_out, end = None, [], [], 0, 0, 0
    try:
        for sample in SAMPLE.finditer(text):
            hidden, old, new = sample["hidden"] or "", sample["shown"], ""
            if not sample["continued"]:
                if session:
                    session.close()
                as_root = re.search("^# ", f"{hidden}\n{old}", re.MULTILINE)
                session = None if as_root and not kernel else Session(programs)
            if not session:
                left_out += 1
                continue
            for who, command in COMMAND.findall(hidden):
                session.run(who, command)
            for who, command in COMMAND.findall(old):
                new += f"{who} {command}\n{session.run(who, command)}"
            ran += 1
            differs = difference(sample["kind"], old, new)
            if differs:
                wrong.append(f"{page}:{text[: sample.start('shown')].count(chr(10)) + 1}: {differs}")
            kept += [text[end : sample.start("shown")], new]
            end = sample.end("shown")
    except TimeoutError as error:
        return text, [f"{page}: {error}"], ran, left_out
    finally:
        if session:
            session.close()
    if text.count("<!-- output:") != ran + left_out:
        wrong.append(f"{page}: an output marker without a console block, or without its end")
    return "".join(kept) + text[end:], wrong, ran, left_out


def main():
    target, check = sys.argv[1], "--check" in sys.argv[2:]
    pages = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").glob("*.md"))]
    kernel = can_ask_the_kernel()
    if os.geteuid() == 0:
        loopback_up()
    # The user without privileges may not be able to read the directory that the programs were built in.
    programs = tempfile.TemporaryDirectory()
    os.chmod(programs.name, 0o755)
    for program in ("rstlab", "rstlab-proxy", "rstlab-upstream"):
        shutil.copy(f"{target}/{program}", programs.name)

    wrong, ran, left_out = [], 0, 0
    for page in pages:
        text, page_wrong, page_ran, page_left_out = run_samples(page, programs.name, kernel)
        wrong, ran, left_out = wrong + page_wrong, ran + page_ran, left_out + page_left_out
        if not check:
            page.write_text(text)
    print(*wrong, sep="\n", file=sys.stderr)
    untested = f"; {left_out} were NOT run: this is not root, or the kernel cannot be asked" if left_out else ""
    print(f"docs: {ran} samples run, {len(wrong)} mistakes{untested}")
    return 1 if check and wrong else 0


sys.exit(main())
