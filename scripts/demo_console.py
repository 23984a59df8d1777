"""The console of the demo, and the key that its checkpoints are signed with."""

import json
import signal
import subprocess

from private_servers import HttpProgram, spawn
from servers import Trouble

LOG_NAME = "example.com/demo-ledger"
STOP_SECONDS_MAX = 10
COMMAND_SECONDS_MAX = 30


def signing(program, run_folder):
    """The settings of [checkpoint] with a new key, and the key that proofs are checked against."""
    key = run_folder / "signing-key"
    done = subprocess.run([str(program), "--json", "keygen", "--name", LOG_NAME, "--out", str(key)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=COMMAND_SECONDS_MAX)
    if done.returncode != 0:
        raise Trouble(f"`ledgerd keygen` ended with {done.returncode}: {done.stderr}")
    return {"key_file": str(key), "anchor_file": str(run_folder / "anchor")}, json.loads(done.stdout)["verifier_key"]


class Console(HttpProgram):
    """`ledgerd console` with the daemon's configuration."""

    def __init__(self, daemon, log, port):
        super().__init__("the console", port, log, STOP_SECONDS_MAX)
        self.daemon = daemon

    def link(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        self.process = spawn(self.daemon.command("console"), self.log, signal.SIGTERM, environment=self.daemon.environment)

    def is_ready(self):
        return self.check_alive() and self.answers("/assets/console.css")
