//! The socket on which systemd listens, in a folder of the test's.

use super::SOON;
use super::process::scratch_folder;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// What the daemon tells systemd comes here.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl NotifySocket {
    pub(crate) fn bind() -> Self {
        let folder = scratch_folder("notify");
        let path = folder.path().join("socket");
        Self { socket: UnixDatagram::bind(&path).expect("the folder is ours"), path, _folder: folder }
    }

    /// The daemon's `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// Waits until it is told something with this text.
    pub(crate) async fn says(&self, text: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let told = timeout(SOON, self.socket.recv(&mut bytes)).await;
            let length = told.unwrap_or_else(|_| panic!("systemd is not told {text:?}")).expect("it is bound");
            let told = String::from_utf8_lossy(&bytes[..length]);
            if told.contains(text) {
                return told.into_owned();
            }
        }
    }

    /// Forgets what was told until now.
    pub(crate) fn forget(&self) {
        let mut bytes = [0; 4096];
        while self.socket.try_recv(&mut bytes).is_ok() {}
    }
}
