//! Three nats-servers that replicate, so that a leader can be moved or killed under the daemon.

use super::nats::{NatsServer, NatsSettings};
use super::port::free_port;
use super::{SOON, eventually, when};
use async_nats::jetstream;
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

const SERVERS: usize = 3;

/// Three servers with routes to each other: streams with three replicas survive the loss of one.
#[derive(Debug)]
pub(crate) struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts the three, and waits until they have elected a leader for JetStream.
    pub(crate) async fn start() -> Self {
        let routes: Vec<u16> = (0..SERVERS).map(|_| free_port()).collect();
        let others: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let others = others.join(", ");
        let prepare = |(number, route): (usize, &u16)| {
            let lines = format!("cluster {{ name: trio, listen: \"127.0.0.1:{route}\", routes: [{others}] }}\n");
            NatsServer::prepare(
                &format!("nats-{number}"),
                free_port(),
                &NatsSettings { lines, ..NatsSettings::default() },
            )
        };
        let servers: Vec<NatsServer> = routes.iter().enumerate().map(prepare).collect();
        servers.iter().for_each(NatsServer::launch);
        let cluster = Self { servers };
        cluster.wait_ready(SERVERS).await;
        cluster
    }

    /// All three addresses, with commas between them.
    pub(crate) fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// JetStream over a connection to any server that runs.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        let addresses: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
        let client = async_nats::connect(addresses).await.expect("a server runs");
        jetstream::context::ContextBuilder::new().timeout(Duration::from_secs(2)).build(client)
    }

    /// The server that leads this stream.
    pub(crate) async fn stream_leader(&self, stream: &str) -> &NatsServer {
        let jetstream = self.jetstream().await;
        let name = eventually("the stream has a leader", SOON, async || {
            let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
            let cluster = stream.cached_info().cluster.clone();
            cluster.and_then(|cluster| cluster.leader).ok_or_else(|| "none".to_owned())
        })
        .await;
        self.server(&name)
    }

    /// Makes the stream's leader hand over, and waits until another leads.
    pub(crate) async fn step_down_stream_leader(&self, stream: &str) {
        let before = self.stream_leader(stream).await.name().to_owned();
        self.step_down(&format!("STREAM.LEADER.STEPDOWN.{stream}")).await;
        eventually("the stream has another leader", SOON, async || {
            let now = self.stream_leader(stream).await.name();
            if now == before { Err(format!("{now} leads")) } else { Ok(()) }
        })
        .await;
    }

    /// Makes the consumer's leader hand over, and waits until there is one again.
    pub(crate) async fn step_down_consumer_leader(&self, stream: &str, consumer: &str) {
        self.step_down(&format!("CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}")).await;
        let jetstream = self.jetstream().await;
        eventually("the consumer has a leader", SOON, async || {
            let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
            let info = stream.consumer_info(consumer).await.map_err(|error| error.to_string())?;
            info.cluster.and_then(|cluster| cluster.leader).map(drop).ok_or_else(|| "none".to_owned())
        })
        .await;
    }

    /// Kills the server that leads this stream with SIGKILL, and returns it.
    pub(crate) async fn kill_leader(&self, stream: &str) -> &NatsServer {
        let leader = self.stream_leader(stream).await;
        leader.kill();
        leader
    }

    /// Starts a server that was killed, and waits until it is a member again.
    pub(crate) async fn restart(&self, server: &NatsServer) {
        server.launch();
        self.wait_ready(SERVERS).await;
    }

    async fn step_down(&self, request: &str) {
        let client = self.jetstream().await.client();
        // The daemon may be making its consumer anew at this moment.
        eventually("the leader steps down", SOON, async || {
            // Without a body: older servers refuse any.
            let answer = client.request(format!("$JS.API.{request}"), Bytes::new()).await;
            let answer: Value =
                serde_json::from_slice(&answer.map_err(|error| error.to_string())?.payload).expect("JSON");
            when(answer["success"] == true, || format!("{request}: {answer}"))
        })
        .await;
    }

    fn server(&self, name: &str) -> &NatsServer {
        self.servers.iter().find(|server| server.name() == name).expect("the leader is one of the three")
    }

    /// Waits until a stream with `replicas` can be made, which needs that many members and their leader.
    async fn wait_ready(&self, replicas: usize) {
        const PROBE: &str = "PROBE";
        eventually("JetStream replicates", SOON, async || {
            let ended = self.servers.iter().find(|server| !server.is_running());
            assert!(
                ended.is_none(),
                "a nats-server did not start\n{}",
                ended.map(NatsServer::log_tail).unwrap_or_default()
            );
            let config = jetstream::stream::Config {
                name: PROBE.to_owned(),
                subjects: vec!["probe".to_owned()],
                num_replicas: replicas,
                ..Default::default()
            };
            let addresses: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
            let client = async_nats::connect(addresses).await.map_err(|error| error.to_string())?;
            let jetstream = jetstream::context::ContextBuilder::new().timeout(Duration::from_secs(2)).build(client);
            jetstream.create_stream(config).await.map_err(|error| error.to_string())?;
            jetstream.delete_stream(PROBE).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}
