//! Everything that the daemon stands between: a database, a nats-server, a publisher, and proxies where a test wants them.

use super::daemon::{Daemon, Environment, ledgerd, text_of};
use super::nats::{Login, NatsServer, NatsSettings, nats_url};
use super::nats_cluster::NatsCluster;
use super::postgres::{Cluster, Database, PASSWORD, SUPERUSER, postgres_url};
use super::proxy::TcpProxy;
use super::publisher::Publisher;
use super::records::REGISTRIES;
use super::shipped_nats;
use async_nats::jetstream;
use std::process::Output;
use std::sync::Arc;

const DATABASE_URL: &str = "LEDGERD__DATABASE__URL";
const NATS_URL: &str = "LEDGERD__NATS__URL";
/// Who may name any `agent_id`. The sample events of tool usage come from many actors.
pub(crate) const USAGE_REPORTERS: &str = "LEDGERD__USAGE__REPORTERS";

/// The servers of one test, migrated and set up.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) nats: Nats,
    pub(crate) publisher: Publisher,
    /// What the daemon is started with. A test may change it between two starts.
    pub(crate) environment: Environment,
    /// What the commands of the operator are started with: straight to the servers, with all rights.
    pub(crate) operator: Environment,
    /// The role that the daemon connects as.
    pub(crate) role: String,
    postgres_proxy: Option<TcpProxy>,
    nats_proxy: Option<TcpProxy>,
}

/// One server, or three that replicate.
#[derive(Debug)]
pub(crate) enum Nats {
    One(Box<NatsServer>),
    Three(NatsCluster),
}

/// What a world has beyond the plainest.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a yes that a test says by name")]
pub(crate) struct Builder {
    own_cluster: bool,
    small_disk_bytes: Option<u64>,
    postgres_proxy: bool,
    nats_proxy: bool,
    nats_cluster: bool,
    nats: NatsSettings,
    shipped_nats: bool,
    limited_role: bool,
    group_roles: bool,
    without_migrations: bool,
    without_streams: bool,
    environment: Environment,
}

impl World {
    /// A fresh database on the shared PostgreSQL and a nats-server of its own, migrated and set up.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the daemon, and waits until it is ready.
    pub(crate) async fn daemon(&self) -> Daemon {
        let mut daemon = self.spawn_daemon();
        daemon.ready().await;
        daemon
    }

    /// Starts the daemon, ready or not.
    pub(crate) fn spawn_daemon(&self) -> Daemon {
        Daemon::spawn(&self.environment)
    }

    /// Starts the daemon with further settings, ready or not.
    pub(crate) fn spawn_daemon_with(&self, settings: &[(&str, &str)]) -> Daemon {
        let mut environment = self.environment.clone();
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Daemon::spawn(&environment)
    }

    /// Runs a command of the operator.
    pub(crate) async fn ledgerd(&self, arguments: &[&str]) -> Output {
        ledgerd(arguments, &self.operator).await
    }

    /// Runs a command of the operator that must succeed, and returns what it prints.
    pub(crate) async fn ledgerd_ok(&self, arguments: &[&str]) -> String {
        let output = self.ledgerd(arguments).await;
        assert!(output.status.success(), "ledgerd {arguments:?}: {}", text_of(&output));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Points the daemon and all commands to another database of the same server.
    pub(crate) fn use_database(&mut self, database: Database) {
        let (old, new) = (format!("/{}", self.database.name()), format!("/{}", database.name()));
        for environment in [&mut self.environment, &mut self.operator] {
            let url = environment.get_mut(DATABASE_URL).expect("it was set");
            *url = url.replacen(&old, &new, 1);
        }
        self.database = database;
    }

    /// From now on the check looks at this server, which was the other's standby.
    pub(crate) fn use_server(&mut self, promoted: &Arc<Cluster>) {
        self.database = self.database.on_the_promoted(promoted);
    }

    /// The PostgreSQL server, to stop or kill where it is the test's own.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.database.cluster()
    }

    /// The nats-server.
    pub(crate) fn nats(&self) -> &NatsServer {
        match &self.nats {
            Nats::One(server) => server,
            Nats::Three(_) => panic!("this world has three"),
        }
    }

    /// The three nats-servers.
    pub(crate) fn nats_cluster(&self) -> &NatsCluster {
        match &self.nats {
            Nats::One(_) => panic!("this world has one"),
            Nats::Three(cluster) => cluster,
        }
    }

    /// JetStream over a fresh connection of the test's own.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        match &self.nats {
            Nats::One(server) => server.jetstream().await,
            Nats::Three(cluster) => cluster.jetstream().await,
        }
    }

    /// The proxy between the daemon and PostgreSQL.
    pub(crate) fn postgres_proxy(&self) -> &TcpProxy {
        self.postgres_proxy.as_ref().expect("the test asked for one")
    }

    /// The proxy between the daemon and the nats-server.
    pub(crate) fn nats_proxy(&self) -> &TcpProxy {
        self.nats_proxy.as_ref().expect("the test asked for one")
    }
}

impl Builder {
    /// A PostgreSQL of the test's own, to be stopped and killed.
    pub(crate) fn own_cluster(mut self) -> Self {
        self.own_cluster = true;
        self
    }

    /// A PostgreSQL of the test's own on a disk of this size, to be filled.
    pub(crate) fn small_disk(mut self, bytes: u64) -> Self {
        self.small_disk_bytes = Some(bytes);
        self
    }

    /// A proxy between the daemon and PostgreSQL.
    pub(crate) fn postgres_proxy(mut self) -> Self {
        self.postgres_proxy = true;
        self
    }

    /// A proxy between the daemon and the nats-server.
    pub(crate) fn nats_proxy(mut self) -> Self {
        self.nats_proxy = true;
        self
    }

    /// Three nats-servers, and three replicas of each stream.
    pub(crate) fn nats_cluster(mut self) -> Self {
        self.nats_cluster = true;
        self.env("LEDGERD__NATS__REPLICAS", "3")
    }

    /// A nats-server that asks for this login. The daemon is given it in the URL.
    pub(crate) fn nats_login(mut self, user: &str, password: &str) -> Self {
        self.nats.login = Some(Login { user: user.to_owned(), password: password.to_owned() });
        self
    }

    /// A nats-server that differs otherwise.
    pub(crate) fn nats_settings(mut self, settings: NatsSettings) -> Self {
        self.nats = settings;
        self
    }

    /// A nats-server with the configuration that ships: the daemon, the operator and the publisher each have the login of theirs.
    pub(crate) fn shipped_nats(mut self) -> Self {
        self.shipped_nats = true;
        self
    }

    /// The daemon connects to PostgreSQL as a role that has what `ledgerd migrate --grant` gives, and nothing else.
    pub(crate) fn limited_role(mut self) -> Self {
        self.limited_role = true;
        self
    }

    /// The ledger belongs to `ledgerd_owner`, and all that the daemon's role may do is what members of `ledgerd_daemon` may.
    pub(crate) fn group_roles(mut self) -> Self {
        self.limited_role = true;
        self.group_roles = true;
        self
    }

    /// An empty database.
    pub(crate) fn without_migrations(mut self) -> Self {
        self.without_migrations = true;
        self
    }

    /// An empty nats-server.
    pub(crate) fn without_streams(mut self) -> Self {
        self.without_streams = true;
        self
    }

    /// A setting of the daemon and of all commands.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Starts everything but the daemon.
    ///
    /// # Panics
    /// Where a small disk was asked for and this machine has none to give: such a test asks with [`Self::try_start`].
    pub(crate) async fn start(self) -> World {
        self.try_start().await.expect("a small disk is a matter of try_start")
    }

    /// Starts everything but the daemon. `None`, said loudly, where a small disk was asked for and cannot be had.
    pub(crate) async fn try_start(self) -> Option<World> {
        let cluster = match self.small_disk_bytes {
            Some(bytes) => Cluster::on_small_disk(bytes).await?,
            None if self.own_cluster => Cluster::start().await,
            None => Cluster::shared().await,
        };
        let database = Database::on(Arc::clone(&cluster)).await;
        let role = if self.limited_role { database.create_role("daemon").await } else { SUPERUSER.to_owned() };
        let nats = self.start_nats().await;
        let (publisher, nats_address) = match &nats {
            Nats::One(server) if self.shipped_nats => {
                (Publisher::connect_as(server, shipped_nats::login(shipped_nats::PUBLISHER)).await, server.url())
            }
            Nats::One(server) => (Publisher::connect(server).await, server.url()),
            Nats::Three(cluster) => {
                (Publisher::over(cluster.jetstream().await, cluster.servers()[0].port()), cluster.url())
            }
        };

        let mut operator = self.environment.clone();
        operator.entry(USAGE_REPORTERS.to_owned()).or_insert_with(|| "*".to_owned());
        operator.insert(DATABASE_URL.to_owned(), database.url());
        let (daemons, operators) = if self.shipped_nats {
            (Some(shipped_nats::login("ledgerd")), Some(shipped_nats::login("setup")))
        } else {
            (self.nats.login.clone(), self.nats.login.clone())
        };
        operator.insert(NATS_URL.to_owned(), with_login(&nats_address, operators.as_ref()));

        let postgres_proxy = if self.postgres_proxy { Some(TcpProxy::forward(cluster.port()).await) } else { None };
        let nats_proxy = match &nats {
            Nats::One(server) if self.nats_proxy => Some(TcpProxy::forward(server.port()).await),
            _ => None,
        };
        let mut environment = operator.clone();
        let port = postgres_proxy.as_ref().map_or(cluster.port(), TcpProxy::port);
        environment.insert(DATABASE_URL.to_owned(), postgres_url(&role, PASSWORD, port, database.name()));
        let daemons_address = nats_proxy.as_ref().map_or(nats_address, |proxy| nats_url(proxy.port()));
        environment.insert(NATS_URL.to_owned(), with_login(&daemons_address, daemons.as_ref()));

        let world = World { database, nats, publisher, environment, operator, role, postgres_proxy, nats_proxy };
        if !self.without_migrations {
            let arguments: &[&str] = match (self.group_roles, self.limited_role) {
                (true, _) => &["migrate", "--roles"],
                (false, true) => &["migrate", "--grant", &world.role],
                (false, false) => &["migrate"],
            };
            world.ledgerd_ok(arguments).await;
            world.database.execute(REGISTRIES).await;
        }
        if self.group_roles {
            world.database.execute(&format!("grant ledgerd_daemon to {}", world.role)).await;
        }
        if !self.without_streams {
            world.ledgerd_ok(&["setup"]).await;
        }
        Some(world)
    }

    async fn start_nats(&self) -> Nats {
        if self.nats_cluster {
            assert!(!self.nats_proxy && self.nats.login.is_none(), "of three servers neither is made");
            return Nats::Three(NatsCluster::start().await);
        }
        if self.shipped_nats {
            return Nats::One(Box::new(NatsServer::start_shipped().await));
        }
        Nats::One(Box::new(NatsServer::start_with(self.nats.clone()).await))
    }
}

fn with_login(url: &str, login: Option<&Login>) -> String {
    match login {
        Some(Login { user, password }) => url.replacen("nats://", &format!("nats://{user}:{password}@"), 1),
        None => url.to_owned(),
    }
}
