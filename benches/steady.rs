//! Measures how soon an event is committed. Publishes events at a steady pace and hears when the stream has each, and when each is
//! acknowledged, which follows its commit. `latency.py` runs it; it prints one JSON object.
//!
//! ```text
//! steady NATS_URL FILE WARM    the file's lines are a subject, a space and a payload; the first WARM of them are not measured
//! ```
#![expect(clippy::print_stdout, reason = "a program, not a library")]

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::{sleep_until, timeout};

const EVENTS_PER_SECOND: u64 = 500;
/// Nothing was heard for so long: what is missing will not come.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// What was heard, each with its moment.
#[derive(Default)]
struct Heard {
    /// By the event's number: its sequence in the stream.
    stored: HashMap<usize, (u64, Instant)>,
    /// By lane, in their order: each acknowledgement speaks for all sequences of the lane up to its own.
    acknowledged: HashMap<String, Vec<(u64, Instant)>>,
}

impl Heard {
    fn note(&mut self, message: &Message) {
        let now = Instant::now();
        let words: Vec<&str> = message.subject.split('.').collect();
        if words[0] == "bench" {
            let number = words[2].parse().expect("the subject that the event named");
            let answer: serde_json::Value =
                serde_json::from_slice(&message.payload).expect("the stream answers in JSON");
            let sequence = answer["seq"].as_u64().unwrap_or_else(|| panic!("the stream refused an event: {answer}"));
            self.stored.insert(number, (sequence, now));
        } else if message.payload.starts_with(b"+ACK") {
            // `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.…`; newer servers put a domain and an account before the stream.
            let consumer = if words.len() < 11 { 3 } else { 5 };
            let sequence = words[consumer + 2].parse().expect("a sequence");
            let lane = words[consumer].rsplit('-').next().expect("a lane").to_owned();
            self.acknowledged.entry(lane).or_default().push((sequence, now));
        }
    }

    /// When a sequence of a lane was acknowledged.
    fn acknowledged_at(&self, lane: &str, sequence: u64) -> Option<Instant> {
        let acknowledged = self.acknowledged.get(lane)?;
        acknowledged.iter().find(|(through, _)| *through >= sequence).map(|(_, at)| *at)
    }

    /// Whether everything was heard of: the last event of each lane is acknowledged.
    fn is_whole(&self, lanes: &[String]) -> bool {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (number, (sequence, _)) in &self.stored {
            let newest = last.entry(&lanes[*number]).or_default();
            *newest = (*newest).max(*sequence);
        }
        self.stored.len() == lanes.len()
            && last.into_iter().all(|(lane, sequence)| self.acknowledged_at(lane, sequence).is_some())
    }
}

async fn hear(answers: Subscriber, acknowledgements: Subscriber, lanes: Vec<String>) -> Heard {
    let mut heard = Heard::default();
    let mut messages = futures_util::stream::select(answers, acknowledgements);
    while heard.stored.len() < lanes.len() || !heard.is_whole(&lanes) {
        let message = timeout(SILENCE_MAX, messages.next()).await;
        heard.note(&message.expect("something is heard every minute").expect("the connection stays"));
    }
    heard
}

/// When each event was published.
async fn publish(client: &Client, lines: &[String]) -> Vec<Instant> {
    let pause = Duration::from_micros(1_000_000 / EVENTS_PER_SECOND);
    let (started, mut published) = (Instant::now(), Vec::with_capacity(lines.len()));
    for (number, line) in lines.iter().enumerate() {
        let due = started + pause * u32::try_from(number).expect("fewer than that");
        sleep_until(due.into()).await;
        let (subject, payload) = line.split_once(' ').expect("a subject and a payload");
        let (subject, reply) = (subject.to_owned(), format!("bench.answer.{number}"));
        published.push(Instant::now());
        client.publish_with_reply(subject, reply, payload.to_owned().into()).await.expect("the connection stays");
    }
    published
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [url, file, warm] = arguments.as_slice() else {
        println!("steady NATS_URL FILE WARM; `make bench` runs it");
        return;
    };
    let lines: Vec<String> = std::fs::read_to_string(file).expect("the events").lines().map(str::to_owned).collect();
    let client = async_nats::connect(url).await.expect("the server answers");
    let answers = client.subscribe("bench.answer.*").await.expect("the connection stays");
    let acknowledgements = client.subscribe("$JS.ACK.>").await.expect("the connection stays");
    let lane = |line: &String| line.split('.').nth(1).expect("a subject of three tokens").to_owned();
    let of_lanes: Vec<String> = lines.iter().map(lane).collect();
    let hearing = tokio::spawn(hear(answers, acknowledgements, of_lanes.clone()));
    let published = publish(&client, &lines).await;
    let heard = hearing.await.expect("it does not panic");

    let (mut stored_ms, mut acknowledged_ms) = (Vec::new(), Vec::new());
    for (number, at) in published.iter().enumerate().skip(warm.parse().expect("a number of events")) {
        let (sequence, stored) = heard.stored[&number];
        let acknowledged = heard.acknowledged_at(&of_lanes[number], sequence).expect("all were heard of");
        stored_ms.push((stored - *at).as_secs_f64() * 1_000.0);
        // The acknowledgement may be heard before the stream's answer.
        acknowledged_ms.push(acknowledged.saturating_duration_since(stored).as_secs_f64() * 1_000.0);
    }
    println!("{}", serde_json::json!({"stored_ms": stored_ms, "acknowledged_ms": acknowledged_ms}));
}
