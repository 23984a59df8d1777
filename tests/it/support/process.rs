//! Processes that end with the test process, always, even when that is killed with SIGKILL.
//!
//! A shell beside the tests, the *janitor*, reads from a pipe that only this process can write to. When this process
//! ends, whatever the way, the kernel closes the pipe; the janitor then kills what is listed in the [`scratch`] folder
//! and removes the folder. (A parent-death signal would come too early: it follows the thread, and each test has its own.)

use super::{eventually, when};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// It must outlive what it cleans up: a Ctrl-C is sent to the foreground group, so it is in none, and ignores it.
const JANITOR: &str = r#"
trap '' INT TERM HUP
read -r _
for pid in "$1"/pids/*; do kill -s KILL "${pid##*/}"; done
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && break; sleep 0.2; done
"#;

/// Open to every account (root's own TMPDIR may not be, and PostgreSQL does not run as root), on a disk where `/tmp` may be
/// memory, and not emptied by a systemd that starts.
const PARENT: &str = "/var/tmp";

struct Scratch {
    folder: PathBuf,
    _janitor: Child,
}

/// The folder of this test process, for everything that it writes. Every account may walk through it.
pub(crate) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    let scratch = SCRATCH.get_or_init(|| {
        let folder =
            tempfile::Builder::new().prefix("ledgerd-it.").tempdir_in(PARENT).expect("everybody may write there");
        let folder = folder.keep();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("the folder is ours");
        fs::create_dir(folder.join("pids")).expect("the folder is ours");
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh is there");
        Scratch { folder, _janitor: janitor }
    });
    &scratch.folder
}

/// A folder of one test, removed when dropped.
pub(crate) fn scratch_folder(name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(&format!("{name}.")).tempdir_in(scratch()).expect("scratch is ours");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the folder is ours");
    folder
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// A program that runs beside the tests, with what it prints in a file. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; standard output and standard error go to the end of the file `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("the log's folder is ours");
        let errors = output.try_clone().expect("a file handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} could not be started: {error}: {command:?}"));
        Self::watched(name, child, log)
    }

    /// Takes over a child that was started already.
    pub(crate) fn watched(name: &str, child: Child, log: &Path) -> Self {
        File::create(pid_file(child.id())).expect("scratch is ours");
        Self { name: name.to_owned(), child, log: log.to_owned(), exit: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far, also in an earlier life with the same log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it has printed, for the message of a failure.
    pub(crate) fn log_tail(&self) -> String {
        const LINES: usize = 60;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LINES);
        format!("--- the last lines of {} ({}):\n{}", self.name, self.log.display(), lines[first..].join("\n"))
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("the child is ours");
            if self.exit.is_some() {
                // Its number may be another's from now on.
                let _ = fs::remove_file(pid_file(self.child.id()));
            }
        }
        self.exit
    }

    /// Sends the signal with this short name (`TERM`, `STOP`, …). A process that has ended is left alone.
    pub(crate) fn signal(&mut self, signal: &str) {
        if self.exit_status().is_none() {
            signal_all(signal, &[self.pid()]);
        }
    }

    /// Waits for its end: its exit code, or 128 and the signal, as a shell tells it.
    ///
    /// # Panics
    /// When it still runs after `bound`.
    pub(crate) async fn wait_exit(&mut self, bound: Duration) -> i32 {
        let what = format!("{} ends", self.name);
        let mut status = None;
        eventually(&what, bound, || {
            status = self.exit_status();
            std::future::ready(when(status.is_some(), || format!("it runs\n{}", self.log_tail())))
        })
        .await;
        let status = status.expect("the condition");
        status.code().unwrap_or_else(|| 128 + status.signal().expect("what did not exit was killed"))
    }

    /// Kills it with SIGKILL and collects it.
    pub(crate) fn kill(&mut self) {
        if self.exit_status().is_none() {
            let _ = self.child.kill();
            self.exit = self.child.wait().ok();
            let _ = fs::remove_file(pid_file(self.child.id()));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends one signal to several processes, without the race that one call for each would have.
pub(crate) fn signal_all(signal: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The shell's own `kill`: not every machine has one as a program. A process may end before its signal.
    let _ = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$@\"", signal])
        .args(pids)
        .stderr(Stdio::null())
        .status()
        .expect("sh is there");
}

/// The processes whose parent is `pid`.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&candidate| {
            let stat = fs::read_to_string(format!("/proc/{candidate}/stat")).unwrap_or_default();
            // The name in parentheses may hold anything; the state and the parent follow it.
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            parent == Some(pid)
        })
        .collect()
}

/// Whether a process with this number runs. One that has ended and was not collected yet does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn pid_file(pid: u32) -> PathBuf {
    scratch().join("pids").join(pid.to_string())
}
