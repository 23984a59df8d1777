"""What a process has used: its processor time and the most memory that it had at once."""

import os
import subprocess
import threading
import time
from pathlib import Path

from servers import Trouble

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LOOK_SECONDS = 0.05


def server_cpu_seconds(pid):
    """The processor time of a server: its own, that of its children, and of those that have ended."""
    def ticks(number, fields):
        return sum(int(word) for word in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[11:11 + fields])

    total, found = ticks(pid, 4), []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found.extend(int(child) for child in task.read_text().split())
    for child in found:
        try:
            total += ticks(child, 2)
        except OSError:
            pass
    return total / TICKS_PER_SECOND


class Watched:
    """A program under watch. Its children count as well."""

    def __init__(self, command, log, environment=None):
        self.log = log
        with open(log, "wb") as sink:
            self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                                            env={**os.environ, **(environment or {})})
        self.started = time.monotonic()
        self.memory_bytes_max = 0
        self.cpu_seconds = 0.0
        self.seconds = None
        self.watch = threading.Thread(target=self.look, daemon=True)
        self.watch.start()

    def family(self):
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    found.extend(int(child) for child in task.read_text().split())
                except OSError:
                    pass
        return found

    def look(self):
        while self.process.poll() is None:
            memory, ticks = 0, 0
            for pid in self.family():
                try:
                    memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                    ticks += sum(int(word) for word in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
                except (OSError, ValueError):
                    continue
            self.memory_bytes_max = max(self.memory_bytes_max, memory)
            self.cpu_seconds = max(self.cpu_seconds, ticks / TICKS_PER_SECOND)
            time.sleep(LOOK_SECONDS)

    def has_ended(self):
        return self.process.poll() is not None

    def alive(self):
        if self.has_ended():
            raise Trouble(f"it ended with {self.process.returncode}:\n{Path(self.log).read_text(errors='replace')[-3000:]}")

    def wait(self, seconds_max):
        self.process.wait(seconds_max)
        self.seconds = time.monotonic() - self.started
        if self.process.returncode != 0:
            self.alive()
        self.watch.join()
        return self

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.watch.join()
