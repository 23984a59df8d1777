//! The socket on which systemd listens, in a folder of the test's.

use super::SOON;
use super::process::scratch_folder;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// What the daemon tells systemd comes here, and is read at once, as systemd does.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    told: Mutex<UnboundedReceiver<String>>,
    path: PathBuf,
    _folder: TempDir,
}

impl NotifySocket {
    pub(crate) fn bind() -> Self {
        let folder = scratch_folder("notify");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("the folder is ours");
        let (sender, told) = unbounded_channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                if sender.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { told: Mutex::new(told), path, _folder: folder }
    }

    /// The daemon's `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// Waits until it is told something with this text.
    pub(crate) async fn says(&self, text: &str) -> String {
        let mut line = self.told.lock().await;
        loop {
            let told = timeout(SOON, line.recv()).await;
            let told = told.unwrap_or_else(|_| panic!("systemd is not told {text:?}")).expect("it is bound");
            if told.contains(text) {
                return told;
            }
        }
    }

    /// Forgets what was told until now.
    pub(crate) async fn forget(&self) {
        let mut line = self.told.lock().await;
        while line.try_recv().is_ok() {}
    }
}
