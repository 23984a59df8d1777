//! The console, as a process: started, asked, ended.

use super::daemon::{Environment, program};
use super::http::{HttpAnswer, ask};
use super::port::free_port;
use super::process::{Process, scratch_folder};
use super::{SOON, eventually, when};
use serde_json::Value;
use tempfile::TempDir;

/// A running `ledgerd console`. Dropping it kills it, and prints the end of its log where the test fails.
#[derive(Debug)]
pub(crate) struct Console {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Console {
    /// Starts it with this environment on a port of its own, and waits until it answers.
    pub(crate) async fn start(environment: &Environment) -> Self {
        let folder = scratch_folder("console");
        let port = free_port();
        let mut command = program(&[], environment);
        command.env("LEDGERD__CONSOLE__LISTEN", format!("127.0.0.1:{port}")).arg("console");
        let process = Process::spawn("ledgerd console", command, &folder.path().join("console.log"));
        let mut console = Self { process, port, _folder: folder };
        eventually("the console answers", SOON, || {
            let status = console.process.exit_status();
            assert!(status.is_none(), "the console has ended: {status:?}\n{}", console.process.log_tail());
            async move {
                let answer = ask(port, "GET", "/assets/console.css", &[], b"").await?;
                when(answer.status == 200, || format!("{answer:?}"))
            }
        })
        .await;
        console
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn sigterm(&mut self) {
        self.process.signal("TERM");
    }

    pub(crate) async fn wait_exit(&mut self) -> i32 {
        self.process.wait_exit(SOON).await
    }

    pub(crate) async fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path, &[], b"").await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        ask(self.port, method, path, headers, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    /// An answer of the API that must be there.
    pub(crate) async fn api(&self, path: &str) -> Value {
        let text = self.page(&format!("/api/v1{path}")).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }
}
