#!/usr/bin/env python3
"""Does the Debian package install, start, upgrade and purge on a clean machine? What `make test-package` does, as root.

The machine is a minimal Debian of its own (debootstrap) in which a real systemd runs as the first process; PostgreSQL and
nats-server run beside it, private ones as in the tests. Each step is checked, and the first that fails ends the run."""

import sys

sys.dont_write_bytecode = True

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from demo_database import Database
from private_servers import Nats, Postgres, end, remove_leftovers, spawn
from servers import CHECKOUT, FOLDER, Trouble, apt_install, output_of, say

RUN = FOLDER / "package"
BASE = FOLDER / "debian"
SUITE = "bookworm"
PACKAGES = CHECKOUT / "target" / "debian"
PROGRAM = CHECKOUT / "target" / "release" / "ledgerd"
COMMAND_SECONDS_MAX = 300
WAIT_SECONDS_MAX = 60

# systemd as the first process of namespaces of its own, with the kind of cgroups that there is. A new root and not a chroot: within
# one, no service may have a user namespace.
BOOT = """
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm run/systemd
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mkdir -p mnt/outside
pivot_root . mnt/outside
umount -l /mnt/outside
# What systemd mounts for a service, its credentials for one, must be seen in the namespace of that service.
mount --make-rshared /
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=false --log-target=journal
"""


class Machine:
    """A clean Debian that has booted."""

    def __init__(self, root):
        self.root = root
        self.cgroups = [folder / f"ledgerd-package.{os.getpid()}" for folder in cgroup_roots()]
        for folder in self.cgroups:
            folder.mkdir()
        enter = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self.cgroups)
        unshare = "exec unshare --pid --fork --kill-child --mount --cgroup --ipc --uts --propagation private bash -euc \"$0\" boot \"$1\""
        self.process = spawn(["bash", "-euc", enter + unshare, BOOT, root], RUN / "systemd.log", signal.SIGKILL)
        self.init = wait_for("systemd as the first process of the machine", self.first_process)
        wait_for("the machine to boot", lambda: self.run("systemctl", "is-system-running", checked=False).strip() in ("running", "degraded"))

    def first_process(self):
        for line in output_of("ps", "-eo", "pid,ppid,args").splitlines()[1:]:
            pid, _, arguments = line.split(None, 2)
            if arguments.startswith("/lib/systemd/systemd") and os.path.samefile(f"/proc/{pid}/root", self.root):
                return pid
        return None

    def run(self, *command, checked=True, text=None):
        """What a command prints inside the machine."""
        inside = ["nsenter", "--target", self.init, "--pid", "--mount", "--cgroup", "--ipc", "--uts", "--root", "--wd=/",
                  "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", *command]
        done = subprocess.run(inside, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECONDS_MAX)
        if checked and done.returncode != 0:
            raise Trouble(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def state(self, unit):
        return self.run("systemctl", "is-active", unit, checked=False).strip()

    def write(self, path, text, mode=0o644):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def stop(self):
        end(self.process)
        for folder in self.cgroups:
            try:
                folder.rmdir()
            except OSError:
                pass


def cgroup_roots():
    named = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]
    return [folder for folder in named if folder.is_dir()] or [Path("/sys/fs/cgroup")]


def wait_for(what, attempt):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := attempt()):
        if time.monotonic() > deadline:
            raise Trouble(f"waited {WAIT_SECONDS_MAX} seconds for {what}")
        time.sleep(0.1)
    return found


def clean_debian(place):
    """A minimal Debian with systemd, made once and copied for each run."""
    if not BASE.is_dir():
        if not shutil.which("debootstrap"):
            apt_install("debootstrap")
        say(f"making a minimal Debian ({SUITE})")
        unfinished = BASE.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        made = subprocess.run(["debootstrap", "--variant=minbase", "--include=systemd,dbus,man-db,bash-completion", SUITE, str(unfinished)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode != 0:
            raise Trouble(f"debootstrap failed:\n{made.stdout[-2000:]}")
        unfinished.rename(BASE)
    subprocess.run(["cp", "-a", "--reflink=auto", str(BASE), str(place)], check=True)


def build(version):
    subprocess.run([CHECKOUT / "scripts" / "package", "--deb-version", version], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    # Its next run removes what the last one made.
    names = [f"{program}_{version}_{output_of('dpkg', '--print-architecture')}.deb" for program in ("ledgerd", "ledgerd-witness")]
    return [shutil.copy(PACKAGES / name, RUN / name) for name in names]


class Ledger:
    """The ledger that the machine's daemon writes."""

    def __init__(self, postgres, nats):
        Database(postgres.url("postgres", "postgres")).execute("create database ledger")
        self.database = Database(postgres.url("postgres", "ledger"))
        self.addresses = {"LEDGERD__DATABASE__URL": postgres.url("postgres", "ledger"), "LEDGERD__NATS__URL": nats.url()}
        self.ledgerd("migrate", "--roles")
        self.ledgerd("setup")

    def ledgerd(self, *arguments):
        done = subprocess.run([PROGRAM, *arguments], env={**os.environ, **self.addresses}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECONDS_MAX)
        if done.returncode != 0:
            raise Trouble(f"ledgerd {' '.join(arguments)}:\n{done.stdout}")

    def record(self, action):
        """Publishes an event, and waits until it is a row."""
        self.ledgerd("emit", "--actor", "BRM-CTO", "--action", action, "--outcome", "SUCCESS")
        query = f"select count(*) as there from audit_events where action = '{action}'"
        wait_for(f"{action} to be recorded", lambda: self.database.rows(query)[0]["there"] == 1)


def check(holds, sentence):
    if not holds:
        raise Trouble(f"not so: {sentence}")
    say(f"  ok: {sentence}")


def install_and_start(machine, ledger, package):
    shutil.copy(package, machine.root / "root" / package.name)
    machine.run("dpkg", "--install", f"/root/{package.name}")
    check(machine.run("id", "-u", "ledgerd").strip().isdigit(), "the account is there")
    check(machine.state("ledgerd") == "inactive", "nothing is started that has no credentials yet")
    check("ledgerd" in machine.run("man", "--pager=cat", "ledgerd"), "the manual page is found")
    check("record_bytes_max" in machine.run("man", "--pager=cat", "ledgerd.toml"), "so is that of the settings")
    check((machine.root / "usr/share/bash-completion/completions/ledgerd").is_file(), "so are the completions")
    machine.write("etc/credstore/ledgerd.database-url", ledger.addresses["LEDGERD__DATABASE__URL"], 0o600)
    machine.write("etc/credstore/ledgerd.nats-url", ledger.addresses["LEDGERD__NATS__URL"], 0o600)
    machine.run("systemctl", "enable", "--now", "ledgerd", checked=False)
    if machine.state("ledgerd") != "active":
        raise Trouble(f"it does not start:\n{machine.run('journalctl', '--no-pager', '--lines=30', checked=False)}")
    check(machine.state("ledgerd") == "active", "it starts, and says that it is ready")


def upgrade(machine, package):
    settings = machine.root / "etc/ledgerd/ledgerd.toml"
    settings.write_text(settings.read_text() + "\n# the operator's own line\n")
    before = machine.run("systemctl", "show", "--property=MainPID", "--value", "ledgerd").strip()
    shutil.copy(package, machine.root / "root" / package.name)
    machine.run("dpkg", "--install", "--force-confold", f"/root/{package.name}")
    wait_for("ledgerd to be active again", lambda: machine.state("ledgerd") == "active")
    after = machine.run("systemctl", "show", "--property=MainPID", "--value", "ledgerd").strip()
    check(before != after, "an upgrade restarts what was running")
    check("the operator's own line" in settings.read_text(), "the operator's settings stay")


def upgrade_that_does_not_start(machine, package):
    settings = machine.root / "etc/ledgerd/ledgerd.toml"
    good = settings.read_text()
    settings.write_text(good + "\n[no_such_section]\nkey = 1\n")
    said = machine.run("dpkg", "--install", "--force-confold", f"/root/{package.name}")
    check("not everything runs again" in said, "an upgrade whose restart is refused says so")
    check("ii  ledgerd" in machine.run("dpkg", "--list", "ledgerd"), "and is whole")
    settings.write_text(good)
    machine.run("systemctl", "restart", "ledgerd")
    check(machine.state("ledgerd") == "active", "it starts again when the operator has seen to it")


def console(machine, ledger):
    """The console under its unit, with a login that only reads."""
    check(machine.state("ledgerd-console") == "inactive", "the console is not started without its login")
    ledger.database.execute("create role console login password 'console' in role ledgerd_reader")
    login = re.sub(r"//[^@]*@", "//console:console@", ledger.addresses["LEDGERD__DATABASE__URL"])
    machine.write("etc/credstore/ledgerd.console-database-url", login, 0o600)
    machine.run("systemctl", "enable", "--now", "ledgerd-console", checked=False)
    if machine.state("ledgerd-console") != "active":
        raise Trouble(f"it does not start:\n{machine.run('journalctl', '--no-pager', '--lines=30', checked=False)}")
    check("console" in machine.run("man", "--pager=cat", "ledgerd-console"), "its manual page is found")
    with urllib.request.urlopen("http://127.0.0.1:9466/timeline", timeout=30) as page:
        check("EXECUTION_STARTED" in page.read().decode(), "it starts under its unit, and shows what was recorded")
    pid = machine.run("systemctl", "show", "--property=MainPID", "--value", "ledgerd-console").strip()
    status = dict(line.split(":\t", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
    check((status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0), "it has no privileges, and system calls are filtered")
    check(status["Uid"].split()[0] not in ("0", machine.run("id", "-u", "ledgerd").strip()), "its account is not the daemon's")
    machine.run("systemctl", "disable", "--now", "ledgerd-console")
    (machine.root / "etc/credstore/ledgerd.console-database-url").unlink()


def witness(machine, package):
    """The witness, which is best on a machine of its own: it needs nothing of the other package."""
    shutil.copy(package, machine.root / "root" / package.name)
    machine.run("dpkg", "--install", f"/root/{package.name}")
    check(machine.state("ledgerd-witness") == "inactive", "the witness is not started without its key")
    check("add-checkpoint" in machine.run("ledgerd-witness", "serve", "--help"), "it says what it does")
    key = machine.run("ledgerd-witness", "keygen", "--name", "witness.example", "--out", "/etc/credstore/ledgerd.witness-key").strip()
    check(key.startswith("witness.example+"), "keygen prints its verifier key")
    log = machine.run("ledgerd", "keygen", "--name", "example.com/ledger", "--out", "/root/log-key").strip()
    machine.write("etc/ledgerd/witness.env", f"LISTEN=127.0.0.1:9465\nLOGS=--log {log}\n")
    machine.run("systemctl", "enable", "--now", "ledgerd-witness", checked=False)
    if machine.state("ledgerd-witness") != "active":
        raise Trouble(f"it does not start:\n{machine.run('journalctl', '--no-pager', '--lines=30', checked=False)}")
    check(True, "the witness starts under its unit, and says that it is ready")


def purge_witness(machine):
    machine.run("dpkg", "--purge", "ledgerd-witness")
    check(machine.state("ledgerd-witness") in ("inactive", "unknown"), "the witness is stopped before it goes")
    check((machine.root / "etc/credstore/ledgerd.witness-key").exists(), "its key, which the operator made, stays")
    (machine.root / "etc/ledgerd/witness.env").unlink()


def purge(machine):
    machine.run("dpkg", "--purge", "ledgerd")
    check(machine.state("ledgerd") in ("inactive", "unknown"), "it is stopped before it goes")
    check(not (machine.root / "etc/systemd/system/multi-user.target.wants/ledgerd.service").is_symlink(), "nothing starts it again")
    check(not (machine.root / "etc/ledgerd").exists(), "the settings are gone")
    check((machine.root / "etc/credstore/ledgerd.nats-url").exists(), "the credentials, which the operator wrote, stay")
    left = machine.run("dpkg", "--list", "ledgerd", checked=False)
    check("ii  ledgerd" not in left and "rc  ledgerd" not in left, "dpkg knows nothing of it any more")


def main():
    if os.geteuid() != 0:
        raise Trouble("a machine of its own takes root: sudo make test-package")
    remove_leftovers(RUN)
    RUN.mkdir(parents=True)
    say("building two versions of the package")
    (first, first_witness), (second, _) = build("0.1.0-1"), build("0.1.0-2")
    stopped = []
    try:
        postgres = Postgres(RUN)
        stopped.append(postgres)
        nats = Nats(RUN)
        stopped.append(nats)
        ledger = Ledger(postgres, nats)
        root = RUN / "debian"
        clean_debian(root)
        machine = Machine(root)
        stopped.append(machine)
        say(f"a clean Debian has booted: systemd {machine.run('systemctl', '--version').split()[1]}")
        install_and_start(machine, ledger, first)
        ledger.record("EXECUTION_STARTED")
        check(True, "what is published is recorded")
        upgrade(machine, second)
        upgrade_that_does_not_start(machine, second)
        ledger.record("EXECUTION_COMPLETED")
        check(True, "so is what is published after the upgrade")
        console(machine, ledger)
        witness(machine, first_witness)
        purge_witness(machine)
        purge(machine)
        say("the packages install, start, upgrade and purge")
    finally:
        for server in reversed(stopped):
            server.stop()
        subprocess.run(["rm", "-rf", "--one-file-system", str(RUN / "debian")], check=False)


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(f"test_package: {trouble}")
