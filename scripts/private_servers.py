"""Private instances of PostgreSQL and nats-server: on free loopback ports, with their data in folders of their own.

They end with the process that started them, even when that one is killed."""

import ctypes
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from servers import Trouble, folder_for, identity, install, nats_server, postgres_bin, server_account

START_SECONDS_MAX = 60
# Between choosing a free port and a server's use of it, another program may take it.
PORT_ATTEMPTS_MAX = 5

PR_SET_PDEATHSIG = 1
try:
    set_process_option = ctypes.CDLL(None).prctl
except AttributeError:
    set_process_option = None


def spawn(command, log, end_signal, account=None, environment=None):
    """Starts a long-running program, in a session of its own: Ctrl-C reaches only us, and we decide the order of the end.

    Should we be killed, the kernel sends it `end_signal`."""
    def ask_for_signal():
        if set_process_option:
            set_process_option(PR_SET_PDEATHSIG, int(end_signal))

    with open(log, "ab") as sink:
        return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd="/",
                                env=environment, start_new_session=True, preexec_fn=ask_for_signal, **identity(account))


def end(process, *steps):
    """Ends a process by (signal, seconds to wait) steps, and for certain after the last."""
    for number, seconds in (*steps, (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def last_lines(log, count=15):
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-count:])


class HttpProgram:
    """A program of ours that answers on a port of this machine. `process` is set when it is started."""

    def __init__(self, name, port, log, stop_seconds_max):
        self.name, self.port, self.log, self.stop_seconds_max, self.process = name, port, log, stop_seconds_max, None

    def answers(self, path):
        """Whether the address is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def check_alive(self):
        if self.process.poll() is not None:
            raise Trouble(f"{self.name} ended by itself with {self.process.returncode}; its log ends:\n{last_lines(self.log)}")
        return True

    def stop(self, hurry=False):
        if self.process:
            end(self.process, *(() if hurry else ((signal.SIGTERM, self.stop_seconds_max),)))


def start_on_free_port(name, start, ready, log):
    """Starts a server by `start(port)` and waits until `ready(port)`; returns the process and its port."""
    for _ in range(PORT_ATTEMPTS_MAX):
        port = free_port()
        process = start(port)
        deadline = time.monotonic() + START_SECONDS_MAX
        while process.poll() is None:
            if ready(port):
                return process, port
            if time.monotonic() > deadline:
                end(process)
                raise Trouble(f"{name} did not answer within {START_SECONDS_MAX} seconds; its log ends:\n{last_lines(log)}")
            time.sleep(0.05)
        if "in use" not in last_lines(log):
            break
    raise Trouble(f"{name} did not start; its log ends:\n{last_lines(log)}")


class Postgres:
    """One cluster, made anew, with the superuser `postgres`."""

    def __init__(self, run_folder):
        self.account = server_account()
        self.programs = postgres_bin()
        self.log = run_folder / "postgresql.log"
        self.link = run_folder / "postgresql"
        self.data = self.make_data_folder()
        install("initdb", *self.command("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"),
                cwd="/", account=self.account)
        self.process, self.port = start_on_free_port("PostgreSQL", self.start, self.answers, self.log)

    def make_data_folder(self):
        """Inside the run folder, or linked from there when PostgreSQL's account cannot reach that."""
        data, reachable = self.link, folder_for(self.account)
        if reachable not in data.parents:
            data = Path(tempfile.mkdtemp(prefix="run-", dir=reachable))
            self.link.symlink_to(data)
        data.mkdir(mode=0o700, exist_ok=True)
        if self.account:
            owner = pwd.getpwnam(self.account)
            os.chown(data, owner.pw_uid, owner.pw_gid)
        return data

    def command(self, program, *arguments):
        return [str(self.programs / program), "-D", str(self.data), *arguments]

    def start(self, port):
        # No socket file: its path may hold 107 bytes at most, and a checkout may lie deeper than that.
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "log_line_prefix": "%m [%p] %a "}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return spawn(self.command("postgres", *arguments), self.log, signal.SIGINT, self.account)

    def answers(self, port):
        """Whether it takes connections: PostgreSQL writes so into its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[3] == str(port) and lines[7].strip() == "ready"

    def url(self, user, database):
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}"

    def stop(self, hurry=False):
        """SIGINT disconnects the clients and makes a checkpoint; SIGQUIT leaves at once."""
        end(self.process, *(() if hurry else ((signal.SIGINT, 20),)), (signal.SIGQUIT, 5))
        shutil.rmtree(self.data, ignore_errors=True)
        if self.link.is_symlink():
            self.link.unlink()


class Nats:
    """One nats-server with an empty JetStream."""

    # As for real audit data: a message is on disk before its publisher is told so.
    sync_interval = "always"

    def __init__(self, run_folder):
        self.program = nats_server()
        self.log = run_folder / "nats-server.log"
        self.data = run_folder / "jetstream"
        self.configuration = run_folder / "nats-server.conf"
        self.process, self.port = start_on_free_port("nats-server", self.start, self.answers, self.log)

    def start(self, port):
        self.configuration.write_text(
            f"listen: \"127.0.0.1:{port}\"\n"
            f"jetstream {{\n  store_dir: {json.dumps(str(self.data))}\n  sync_interval: {self.sync_interval}\n}}\n")
        return spawn([self.program, "--config", self.configuration], self.log, signal.SIGTERM)

    def answers(self, port):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                return b'"jetstream":true' in connection.recv(4096)
        except OSError:
            return False

    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def stop(self, hurry=False):
        end(self.process, *(() if hurry else ((signal.SIGTERM, 10),)))
        shutil.rmtree(self.data, ignore_errors=True)


def remove_leftovers(run_folder):
    """Clears what an earlier run left: nothing but logs after Ctrl-C, everything after a power cut."""
    data = (run_folder / "postgresql").resolve()
    deadline = time.monotonic() + 20
    while running(data):
        # Its parent was killed a moment ago, and the kernel has asked it to end.
        if time.monotonic() > deadline:
            raise Trouble(f"an earlier PostgreSQL still runs in {data}: end process {running(data)}")
        time.sleep(0.1)
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(run_folder, ignore_errors=True)


def running(data):
    """The process id of the PostgreSQL that runs in a data folder, or None."""
    try:
        number = (data / "postmaster.pid").read_text().splitlines()[0]
        arguments = Path("/proc", number, "cmdline").read_bytes()
    except (OSError, IndexError):
        return None
    return number if str(data).encode() in arguments else None
