//! The console, as a process: started, asked, ended.

use super::daemon::{Environment, program};
use super::http::{HttpAnswer, ask};
use super::port::free_port;
use super::process::{Process, scratch_folder};
use super::{SOON, eventually, when};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) const TOKENS: &str = "LEDGERD__CONSOLE__TOKENS";

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
        Self::start_with(&[], environment).await
    }

    /// The same with these words before the command, say a `--config` with its file.
    pub(crate) async fn start_with(options: &[&str], environment: &Environment) -> Self {
        let folder = scratch_folder("console");
        let port = free_port();
        let mut command = program(options, environment);
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

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// What it holds in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Asks it to read its settings again.
    pub(crate) fn sighup(&mut self) {
        self.process.signal("HUP");
    }

    /// Signs in as a person does, with the form of `/login`.
    pub(crate) async fn sign_in(&self, token: &str) -> Person<'_> {
        let answer = self.ask("POST", "/login", &[FORM], format!("token={token}&next=/timeline").as_bytes()).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/timeline"), "{}", answer.text());
        let cookie = answer.header("set-cookie").split(';').next().expect("a first part").to_owned();
        Person { console: self, cookie }
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

/// What a form's body is.
pub(crate) const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// An entry of `console.tokens`.
pub(crate) fn token_entry(token: &str, role: &str, name: &str) -> String {
    let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hash} {role} {name}")
}

/// Somebody who has signed in.
#[derive(Debug)]
pub(crate) struct Person<'a> {
    console: &'a Console,
    pub(crate) cookie: String,
}

impl Person<'_> {
    pub(crate) async fn get(&self, path: &str) -> HttpAnswer {
        self.console.ask("GET", path, &[("Cookie", &self.cookie)], b"").await
    }

    /// Sends the form of a page, with the page's own key among the fields.
    pub(crate) async fn send(&self, page: &str, action: &str, fields: &str) -> HttpAnswer {
        let key = self.form_key(page).await;
        self.post(action, &format!("form_key={key}&{fields}")).await
    }

    /// Sends a form that comes from no page.
    pub(crate) async fn post(&self, action: &str, body: &str) -> HttpAnswer {
        self.console.ask("POST", action, &[("Cookie", &self.cookie), FORM], body.as_bytes()).await
    }

    /// What the forms of a page carry.
    pub(crate) async fn form_key(&self, page: &str) -> String {
        let text = self.get(page).await.text();
        let field = text.split("name=\"form_key\" value=\"").nth(1);
        let key = field.and_then(|rest| rest.split('"').next());
        key.unwrap_or_else(|| panic!("{page} has no form with a key: {text}")).to_owned()
    }
}
