//! Answers requests on `budget.<AGENT>`. Of several instances one answers, for they share a queue group.

use crate::budget::gate::{self, BudgetAnswer, GateRules};
use crate::budget::status::Budget;
use crate::postgres::connections::Connections;
use crate::record::rules::Rules;
use async_nats::{Client, Message};
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SUBJECTS: &str = "budget.*";
const PREFIX: &str = "budget.";
const QUEUE_GROUP: &str = "ledgerd-budget";
/// Questions that are being answered at a time; the next ones wait in the client.
const ANSWERS_MAX: usize = 32;
/// An agent that waits for its model call hears within this time that there is no answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Where answers may go: to inboxes, those of other accounts and clusters as the server writes them. A publisher chooses the reply, and
/// no message of ours gets into a stream that way.
const REPLY_PREFIXES: [&str; 3] = ["_INBOX", "_R_.", "_GR_."];

/// What the answers are made from.
#[derive(Debug)]
pub struct Gate {
    pub connections: Connections,
    pub rules: watch::Receiver<Arc<Rules>>,
    pub budget: Budget,
}

/// Answers until told to stop.
pub async fn serve(client: &Client, gate: &Gate, stop: &CancellationToken) {
    match client.queue_subscribe(SUBJECTS, QUEUE_GROUP.to_owned()).await {
        Ok(questions) => {
            let questions = questions.take_until(stop.cancelled());
            questions.for_each_concurrent(ANSWERS_MAX, |question| answer(client, gate, question)).await;
        }
        Err(error) => tracing::error!("nobody answers on {SUBJECTS}: {error}"),
    }
    // Where the client has ended by itself, the lanes notice, and another one is made.
    stop.cancelled().await;
}

async fn answer(client: &Client, gate: &Gate, question: Message) {
    let reply = question.reply.filter(|reply| REPLY_PREFIXES.iter().any(|prefix| reply.starts_with(prefix)));
    let (Some(reply), Some(agent)) = (reply, question.subject.strip_prefix(PREFIX)) else { return };
    let rules = gate.rules.borrow().clone();
    let rules = GateRules { agents: &rules.agents, budget: &gate.budget };
    let answer = match timeout(ANSWER_TIME_MAX, gate::ask(&gate.connections, rules, agent)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => BudgetAnswer::unavailable(agent, &error.to_string()),
        Err(_) => BudgetAnswer::unavailable(agent, "the database does not answer"),
    };
    let payload = serde_json::to_vec(&answer).expect("an answer is JSON");
    if let Err(error) = client.publish(reply, payload.into()).await {
        tracing::debug!("a question about a budget was not answered: {error}");
    }
}
