//! The installed PostgreSQL: its programs, whom it runs as, and where its data is.

use super::process::{is_root, scratch, scratch_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The password of every role, the superuser's too. The server asks for it with SCRAM, so a wrong one is refused.
pub(crate) const PASSWORD: &str = "ledgerd-test";

/// The superuser.
pub(crate) const SUPERUSER: &str = "postgres";

const MAJOR_MIN: u32 = 15;

/// An initialised data folder, made once per test process.
pub(super) fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let data = server_folder("postgres-template").keep().join("data");
        initialise(&become_account(), &data, None);
        data
    })
}

/// Makes a data folder, with the write-ahead log inside or elsewhere.
pub(super) fn initialise(prefix: &[String], data: &Path, wal: Option<&Path>) {
    let password_file = scratch().join("postgres-password");
    fs::write(&password_file, PASSWORD).expect("scratch is ours");
    let mut command = server_command(prefix, "initdb");
    command.arg("-D").arg(data).arg("--pwfile").arg(password_file);
    command.args(["-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    if let Some(wal) = wal {
        command.arg("--waldir").arg(wal);
    }
    let output = command.output().expect("initdb is there");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder that belongs to the account that PostgreSQL runs as.
pub(super) fn server_folder(name: &str) -> TempDir {
    let folder = scratch_folder(name);
    if let Some((uid, gid)) = account() {
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("root may give folders away");
    }
    folder
}

/// One of PostgreSQL's programs, after the words that enter its surroundings.
pub(super) fn server_command(prefix: &[String], program: &str) -> Command {
    let mut words: Vec<PathBuf> = prefix.iter().map(PathBuf::from).collect();
    words.push(programs().join(program));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(scratch());
    command
}

/// The words before a command that make it run as PostgreSQL's account; none where the tests do not run as root.
pub(super) fn become_account() -> Vec<String> {
    let Some((uid, gid)) = account() else { return Vec::new() };
    let words = ["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--"];
    words.map(str::to_owned).to_vec()
}

/// PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`.
fn account() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("Linux");
    let ids = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("an account `postgres` or `nobody`"))
}

/// The folder with `postgres` and `initdb`.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(folder) = std::env::var_os("LEDGERD_TEST_PG_BIN") {
            return folder.into();
        }
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|version| {
            let version = version.ok()?;
            let major: u32 = version.file_name().to_str()?.parse().ok()?;
            Some((major, version.path().join("bin")))
        });
        let newest = debian.filter(|(major, folder)| *major >= MAJOR_MIN && folder.join("initdb").exists()).max();
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|folder| folder.join("initdb").exists() && is_new_enough(folder))
        };
        newest.map(|(_, folder)| folder).or_else(on_path).unwrap_or_else(|| {
            panic!(
                "no PostgreSQL {MAJOR_MIN} or newer: run the tests with `make test`, which brings one, \
                 or name the folder of its programs in LEDGERD_TEST_PG_BIN"
            )
        })
    })
}

fn is_new_enough(folder: &Path) -> bool {
    let Ok(output) = Command::new(folder.join("postgres")).arg("--version").output() else { return false };
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    // "postgres (PostgreSQL) 15.4 (Debian …)"
    let major = version.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= MAJOR_MIN)
}
