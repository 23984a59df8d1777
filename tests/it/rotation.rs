//! Credentials are rotated while records come: the daemon goes on without a restart, and nothing is lost.

use crate::support::busy::while_publishing;
use crate::support::certificates::{Authority, Identity};
use crate::support::daemon::{Daemon, Environment};
use crate::support::jwt::{Claims, Operator};
use crate::support::ledger::{all_lanes_are_owned, check_ledger};
use crate::support::nats::{NatsSettings, TlsFiles};
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use nkeys::KeyPair;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const NATS_URL: &str = "LEDGERD__NATS__URL";

/// The daemon's settings, but that it finds the server by these instead of by the URL with its password.
fn settings(world: &World, instead: &[(&str, &str)]) -> Environment {
    let mut environment = world.environment.clone();
    environment.remove(NATS_URL);
    environment.extend(instead.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    environment
}

async fn start(environment: &Environment) -> Daemon {
    let mut daemon = Daemon::spawn(environment);
    daemon.ready().await;
    daemon
}

/// A file of a secret, in a folder that goes with it.
struct Secret(TempDir);

impl Secret {
    fn new(text: &str) -> Self {
        let secret = Self(scratch_folder("secret"));
        secret.rotate(text);
        secret
    }

    fn path(&self) -> String {
        self.0.path().join("secret").display().to_string()
    }

    /// As one should: the new file takes the place of the old at once.
    fn rotate(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).expect("the folder is ours");
        fs::rename(new, self.path()).expect("the folder is ours");
    }
}

async fn reload(daemon: &mut Daemon, says: &str) {
    let before = daemon.log_lines_matching(says).len();
    daemon.sighup();
    eventually("the reload has ended", SOON, async || {
        when(daemon.log_lines_matching(says).len() > before, || daemon.log())
    })
    .await;
}

const RELOADED: &str = "reloaded registry, agents and credentials";
const FAILED: &str = "reload failed, what was in force stays in force";

/// It has never stopped, it is well, and everything that was published is stored once.
async fn nothing_is_lost(world: &World, daemon: &mut Daemon, published: &Published) {
    assert!(!published.all().is_empty());
    let counts = check_ledger(world, published).await;
    assert_eq!((counts.rows, counts.rejects), (published.all().len(), 0));
    daemon.ready().await;
}

#[tokio::test]
async fn a_password_in_a_file_is_rotated_without_a_word_to_the_daemon() {
    let world = World::builder().shipped_nats().start().await;
    let password = Secret::new("secret_LEDGERD");
    let url = world.nats().url();
    let file = password.path();
    let by_file = [(NATS_URL, &*url), ("LEDGERD__NATS__USER", "ledgerd"), ("LEDGERD__NATS__PASSWORD_FILE", &*file)];
    let mut daemon = start(&settings(&world, &by_file)).await;
    let work = async {
        password.rotate("rotated");
        world.nats().reconfigure(|text| text.replace("$LEDGERD_PASSWORD", "rotated")).await;
        // The server has dropped the connection; it is made anew with what the file says now.
        connected_again(&daemon).await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    nothing_is_lost(&world, &mut daemon, &published).await;
}

/// Waits until the daemon has lost its connection and has it again.
async fn connected_again(daemon: &Daemon) {
    daemon.says("waiting for NATS").await;
    daemon.says("NATS is back").await;
}

#[tokio::test]
async fn a_password_in_the_url_is_rotated_by_a_reload_and_a_wrong_one_changes_nothing() {
    let world = World::builder().shipped_nats().start().await;
    let address = world.nats().url().replacen("nats://", "", 1);
    let with = |login: &str| format!("nats://{login}@{address}");
    let url = Secret::new(&with("ledgerd:secret_LEDGERD"));
    let mut daemon = start(&settings(&world, &[("LEDGERD__NATS__URL_FILE", &url.path())])).await;
    for (wrong, says) in
        [("ledgerd:wrong", "authorization violation"), ("setup:secret_SETUP", "the user cannot change")]
    {
        url.rotate(&with(wrong));
        reload(&mut daemon, FAILED).await;
        assert!(daemon.log_lines_matching(FAILED).last().is_some_and(|line| line.contains(says)), "{}", daemon.log());
    }
    assert!(!daemon.log_contains("waiting for NATS"), "the old connection was never given up");
    let work = async {
        world.nats().reconfigure(|text| text.replace("$LEDGERD_PASSWORD", "rotated")).await;
        // Of the connection that is ended, or of the next.
        daemon.says("nats: authorization violation").await;
        url.rotate(&with("ledgerd:rotated"));
        reload(&mut daemon, RELOADED).await;
        daemon.says("NATS is back").await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    nothing_is_lost(&world, &mut daemon, &published).await;
}

#[tokio::test]
async fn an_nkey_is_rotated_while_the_server_knows_both() {
    let world = World::builder().shipped_nats().start().await;
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let users = |keys: &[&KeyPair]| {
        let user = |key: &&KeyPair| format!("{{ nkey: {}, permissions: $DAEMON }}\n", key.public_key());
        keys.iter().map(user).collect::<String>()
    };
    let by_password = "{ user: ledgerd, password: $LEDGERD_PASSWORD, permissions: $DAEMON }";
    world.nats().reconfigure(|text| text.replace(by_password, &users(&[&old]))).await;
    let seed = Secret::new(&old.seed().expect("it is a pair"));
    let (url, file) = (world.nats().url(), seed.path());
    let mut daemon = start(&settings(&world, &[(NATS_URL, &url), ("LEDGERD__NATS__NKEY_FILE", &file)])).await;
    let work = async {
        world.nats().reconfigure(|text| text.replace(&users(&[&old]), &users(&[&old, &new]))).await;
        seed.rotate(&new.seed().expect("it is a pair"));
        reload(&mut daemon, RELOADED).await;
        // From here on the server takes the new key alone.
        world.nats().reconfigure(|text| text.replace(&users(&[&old, &new]), &users(&[&new]))).await;
        daemon.says("NATS is back").await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    nothing_is_lost(&world, &mut daemon, &published).await;
}

/// The first JWT ends while records come. The server drops the connection then, and the next one brings the new file.
#[tokio::test]
async fn a_jwt_that_ends_is_followed_by_the_next() {
    let operator = Operator::new();
    let test = operator.credentials("the test", &Claims::forever());
    let settings_of_server = NatsSettings {
        lines: operator.server_configuration(),
        credentials: Some(test.clone()),
        ..NatsSettings::default()
    };
    let operators = Secret::new(&test);
    let world = World::builder()
        .nats_settings(settings_of_server)
        .env("LEDGERD__NATS__CREDENTIALS_FILE", &operators.path())
        .start()
        .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let credentials = Secret::new(&operator.credentials("ledgerd", &Claims::until(now + Duration::from_secs(5))));
    let url = world.nats().url();
    let by_file = [(NATS_URL, &*url), ("LEDGERD__NATS__CREDENTIALS_FILE", &*credentials.path())];
    let mut daemon = start(&settings(&world, &by_file)).await;
    let work = async {
        credentials.rotate(&operator.credentials("ledgerd", &Claims::forever()));
        connected_again(&daemon).await;
    };
    let ((), published) = while_publishing(&world.publisher, work).await;
    nothing_is_lost(&world, &mut daemon, &published).await;
}

/// Everything changes hands: the authority, the daemon's certificate, and the server's.
#[tokio::test]
async fn certificates_and_their_authority_are_rotated() {
    let folder = scratch_folder("tls");
    let file = |name: &str| folder.path().join(name);
    let (old, new, tests) = (Authority::new("old"), Authority::new("new"), Authority::new("tests"));
    let write = |name: &str, texts: &[&str]| fs::write(file(name), texts.concat()).expect("the folder is ours");
    let write_identity = |name: &str, Identity { certificate, key }: Identity| {
        write(&format!("{name}.pem"), &[&certificate]);
        write(&format!("{name}.key"), &[&key]);
    };
    write("clients.pem", &[&old.certificate(), &tests.certificate()]);
    write_identity("server", old.identity());
    write("roots.pem", &[&old.certificate()]);
    write_identity("daemon", old.identity());
    write("both.pem", &[&old.certificate(), &new.certificate()]);
    write_identity("test", tests.identity());

    let world = World::builder()
        .nats_settings(NatsSettings {
            lines: server_tls(folder.path()),
            tls: Some(files(folder.path(), "both", "test")),
            ..NatsSettings::default()
        })
        .env("LEDGERD__NATS__CA_FILE", &file("both.pem").display().to_string())
        .env("LEDGERD__NATS__CERTIFICATE_FILE", &file("test.pem").display().to_string())
        .env("LEDGERD__NATS__KEY_FILE", &file("test.key").display().to_string())
        .start()
        .await;
    let daemons = files(folder.path(), "roots", "daemon");
    let mut daemon = world.spawn_daemon_with(&[
        ("LEDGERD__NATS__CA_FILE", &daemons.roots),
        ("LEDGERD__NATS__CERTIFICATE_FILE", &daemons.certificate),
        ("LEDGERD__NATS__KEY_FILE", &daemons.key),
    ]);
    daemon.ready().await;
    all_lanes_are_owned(&world).await;
    let work = async {
        // Both sides come to trust the new authority,
        write("clients.pem", &[&old.certificate(), &new.certificate(), &tests.certificate()]);
        write("roots.pem", &[&old.certificate(), &new.certificate()]);
        world.nats().reconfigure(|text| text).await;
        // a key that does not belong to its certificate is noticed before anything is given up,
        write_identity("daemon", Identity { key: tests.identity().key, ..new.identity() });
        reload(&mut daemon, FAILED).await;
        assert!(!daemon.log_contains("waiting for NATS"), "the old connection was never given up");
        // both get its certificates,
        write_identity("daemon", new.identity());
        reload(&mut daemon, RELOADED).await;
        daemon.says("NATS is back").await;
        write_identity("server", new.identity());
        // and the old authority is trusted no more.
        write("clients.pem", &[&new.certificate(), &tests.certificate()]);
        world.nats().reconfigure(|text| text).await;
        write("roots.pem", &[&new.certificate()]);
        reload(&mut daemon, RELOADED).await;
    };
    let ((), mut published) = while_publishing(&world.publisher, work).await;
    // Nothing hangs on a connection from before.
    world.nats().restart().await;
    daemon.ready().await;
    let id = "after the restart";
    let event = crate::support::events::next_event("EXEC").good();
    published.publish_through_outages(&world.publisher, id, event).await;
    nothing_is_lost(&world, &mut daemon, &published).await;
}

fn server_tls(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\", ca_file: \"{folder}/clients.pem\", verify: true }}\n"
    )
}

fn files(folder: &Path, roots: &str, name: &str) -> TlsFiles {
    let file = |name: String| folder.join(name).display().to_string();
    TlsFiles {
        roots: file(format!("{roots}.pem")),
        certificate: file(format!("{name}.pem")),
        key: file(format!("{name}.key")),
    }
}
