//! A disk that can be full: a tmpfs of a given size, in a mount namespace of its own.
//!
//! The namespace belongs to one idle process. When that ends, and it ends with the test process, the kernel unmounts
//! the disk: nothing is left behind, whatever happens. PostgreSQL is started inside the namespace, and the tests
//! reach it through `/proc`.

use super::installation::become_account;
use super::process::{Process, is_root};
use super::{SOON, eventually};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

/// Mounts, says so, and then waits until its standard input is closed.
const HOLD: &str = r#"mount -t tmpfs -o "size=$1,mode=0777" ledgerd-test "$2" && echo mounted && exec cat >/dev/null"#;

const BALLAST: &str = "ballast";

/// A file system of limited size.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    folder: PathBuf,
    holder: Process,
    _open: ChildStdin,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` at `folder`, which is made. `Err` says why this machine does not allow it.
    pub(crate) async fn mount(folder: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir(folder).map_err(|error| error.to_string())?;
        let log = folder.with_extension("log");
        let output = File::create(&log).map_err(|error| error.to_string())?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", HOLD, "hold", &bytes.to_string()]).arg(folder);
        command.stdin(Stdio::piped()).stderr(output.try_clone().expect("a file handle")).stdout(output);
        let mut child = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let open = child.stdin.take().expect("it was piped");
        let mut holder = Process::watched("the small disk", child, &log);
        let mounted = eventually("the small disk is mounted", SOON, || {
            let ended = holder.exit_status().is_some();
            let log = holder.log();
            std::future::ready(match log.contains("mounted") {
                true => Ok(Ok(())),
                false if ended => Ok(Err(log)),
                false => Err(log),
            })
        });
        mounted.await?;
        Ok(Self { folder: folder.to_owned(), holder, _open: open })
    }

    /// Where it is mounted, for those inside.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The words before a command that make it see the disk, as PostgreSQL's account.
    pub(crate) fn enter(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        let mut words: Vec<String> = ["nsenter", "--target", &pid, "--mount"].map(str::to_owned).to_vec();
        if is_root() {
            words.push("--".to_owned());
            words.extend(become_account());
        } else {
            // In that namespace we are root, as which PostgreSQL refuses to run: one more namespace makes us ourselves.
            let me = fs::metadata("/proc/self").expect("Linux");
            let (user, group) = (format!("--map-user={}", me.uid()), format!("--map-group={}", me.gid()));
            let back = ["--user", "--preserve-credentials", "--", "unshare", "--user", &user, &group, "--"];
            words.extend(back.map(str::to_owned));
        }
        words
    }

    /// Writes until nothing more fits, not one block.
    pub(crate) fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("the disk is ours");
        for block_bytes in [1 << 20, 4096, 1] {
            let block = vec![0; block_bytes];
            loop {
                match ballast.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the small disk could not be filled: {error}"),
                }
            }
        }
    }

    /// Removes what [`fill`](Self::fill) wrote.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled before");
    }

    /// As this process, outside, finds it.
    fn ballast(&self) -> PathBuf {
        let inside = self.folder.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(inside).join(BALLAST)
    }
}
