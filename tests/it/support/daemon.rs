//! The daemon itself, as a process: started, asked, signalled, killed.

use super::port::free_port;
use super::process::{Process, scratch, scratch_folder};
use super::{SOON, eventually};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ledgerd");

/// What begins with this configures the daemon.
const PREFIX: &str = "LEDGERD__";

/// How long an answer over HTTP may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Environment variables.
pub(crate) type Environment = BTreeMap<String, String>;

/// A running `ledgerd run`. Dropping it kills it, and prints the end of its log where the test fails.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    http_port: u16,
    _folder: TempDir,
}

/// The answer to a GET.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Daemon {
    /// Starts the daemon with this environment, and no file. It listens for HTTP on a port of its own.
    pub(crate) fn spawn(environment: &Environment) -> Self {
        Self::spawn_with(&[], environment)
    }

    /// Starts the daemon with these words before the command, say a `--config` with its file.
    pub(crate) fn spawn_with(options: &[&str], environment: &Environment) -> Self {
        let folder = scratch_folder("daemon");
        let http_port = free_port();
        let mut command = program(options, environment);
        command.env("LEDGERD__HTTP__LISTEN", format!("127.0.0.1:{http_port}")).arg("run");
        let process = Process::spawn("ledgerd", command, &folder.path().join("ledgerd.log"));
        Self { process, http_port, _folder: folder }
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&mut self) {
        self.ready_within(SOON).await;
    }

    /// Waits until `/readyz` answers 200, for the tests that measure how soon that is.
    pub(crate) async fn ready_within(&mut self, bound: Duration) {
        let port = self.http_port;
        eventually("ledgerd is ready", bound, || {
            let status = self.process.exit_status();
            assert!(status.is_none(), "ledgerd has ended: {status:?}\n{}", self.process.log_tail());
            async move {
                let answer = get(port, "/readyz").await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            }
        })
        .await;
    }

    /// Waits until `/readyz` answers something else than 200, and returns what it says is missing.
    pub(crate) async fn unready(&self) -> String {
        eventually("ledgerd is not ready", SOON, async || {
            let answer = self.get("/readyz").await?;
            if answer.status == 200 { Err("200".to_owned()) } else { Ok(answer.body) }
        })
        .await
    }

    /// What `/readyz` says now.
    pub(crate) async fn readyz_text(&self) -> String {
        self.get("/readyz").await.expect("ledgerd answers").body
    }

    /// `/metrics`, from `name{labels}` as it is printed to the value.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics").await.expect("ledgerd answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.lines().filter_map(parse_sample).collect()
    }

    /// The sum of a metric over all its labels that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let metrics = self.metrics().await;
        let is_it = |key: &str| key.split('{').next() == Some(name) && key.contains(labels);
        metrics.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| value).sum()
    }

    /// Any other page. `Err` when nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        get(self.http_port, path).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Asks it to finish what it holds and to end.
    pub(crate) fn sigterm(&mut self) {
        self.process.signal("TERM");
    }

    /// Asks it to read its files again.
    pub(crate) fn sighup(&mut self) {
        self.process.signal("HUP");
    }

    /// Freezes it: its connections stay open, and it does nothing.
    pub(crate) fn sigstop(&mut self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn sigcont(&mut self) {
        self.process.signal("CONT");
    }

    /// Kills it at this instant, and waits until it is gone.
    pub(crate) fn sigkill(&mut self) {
        self.process.kill();
    }

    /// Waits for its end: its exit code, or 128 and the signal.
    pub(crate) async fn wait_exit(&mut self) -> i32 {
        self.wait_exit_within(SOON).await
    }

    /// Waits for its end, for the tests that measure how soon that is.
    pub(crate) async fn wait_exit_within(&mut self, bound: Duration) -> i32 {
        self.process.wait_exit(bound).await
    }

    /// The memory that it holds at this moment.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// Everything it has printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn log_contains(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    pub(crate) fn log_lines_matching(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until it has said this.
    pub(crate) async fn says(&self, text: &str) {
        let what = format!("ledgerd says {text:?}");
        eventually(&what, SOON, async || if self.log_contains(text) { Ok(()) } else { Err(self.process.log_tail()) })
            .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
    }
}

/// Runs a command of the program to its end. It does so beside the runtime, whose proxies go on in the meantime.
///
/// # Panics
/// When it takes longer than [`SOON`].
pub(crate) async fn ledgerd(arguments: &[&str], environment: &Environment) -> Output {
    ledgerd_with_input(arguments, environment, "").await
}

/// Starts a command of the program, to be killed at some instant. What it prints goes to this file.
pub(crate) fn spawn_ledgerd(arguments: &[&str], environment: &Environment, log: &Path) -> Process {
    Process::spawn("ledgerd", program(arguments, environment), log)
}

/// Runs a command of the program with this on its standard input.
pub(crate) async fn ledgerd_with_input(arguments: &[&str], environment: &Environment, input: &str) -> Output {
    let folder = scratch_folder("command");
    let input_file = folder.path().join("input");
    std::fs::write(&input_file, input).expect("the folder is ours");
    let mut command = program(arguments, environment);
    command.stdin(std::fs::File::open(input_file).expect("it was just written"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is built");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let finished = timeout(SOON, output).await;
    let finished = finished.unwrap_or_else(|_| panic!("ledgerd {arguments:?} is not done within {SOON:?}"));
    finished.expect("waiting does not panic").expect("the child is ours")
}

/// Both outputs of a command, for the message of a failure.
pub(crate) fn text_of(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n--- standard output:\n{out}\n--- standard error:\n{err}", output.status)
}

/// The program with this configuration alone: nothing of it comes from the machine that the tests run on.
pub(crate) fn program(arguments: &[&str], environment: &Environment) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("CREDENTIALS_DIRECTORY");
    if !arguments.contains(&"--config") {
        let empty = scratch().join("empty.toml");
        std::fs::write(&empty, "").expect("scratch is ours");
        command.arg("--config").arg(empty);
    }
    command.args(arguments).envs(environment).current_dir("/");
    command
}

/// HTTP by hand: one GET, one answer, and the connection ends.
async fn get(port: u16, path: &str) -> Result<Answer, String> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        // 1.0, so that the body comes in one piece.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(ANSWER_MAX, exchange).await.map_err(|_| format!("no answer within {ANSWER_MAX:?}"))?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no header")?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok(Answer { status, body: body.to_owned() })
}

/// One line of Prometheus's text format.
fn parse_sample(line: &str) -> Option<(String, f64)> {
    if line.starts_with('#') {
        return None;
    }
    // A label may hold spaces, a value may not. An exemplar, after " # ", is not part of the sample.
    let sample = line.split(" # ").next()?.trim_end();
    let (name, value) = sample.rsplit_once(' ')?;
    Some((name.to_owned(), value.parse().ok()?))
}
