//! A client for the JetStream API: the requests that the ledger needs, each with a time limit.

use crate::nats::client::{Connection, REQUEST_TIMEOUT};
use crate::record::lane::Lane;
use crate::record::message::{Headers, Incarnation, Message, storable_subject, unix_ns};
use async_nats::Client;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, consumer, stream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The requests, over one connection.
#[derive(Clone, Debug)]
pub struct Api {
    connection: Connection,
    context: jetstream::Context,
}

/// The server's no, or its silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such stream.
    #[error("the stream does not exist: run `ledgerd setup`")]
    StreamNotFound,
    /// There is no such consumer.
    #[error("the consumer does not exist: run `ledgerd setup`")]
    ConsumerNotFound,
    /// There is such a consumer already, and it is another one.
    #[error("the consumer exists already: somebody else has just made it")]
    ConsumerExists,
    /// There is no such message.
    #[error("the stream does not hold the message")]
    MessageNotFound,
    /// The consumer was changed so that messages can be lost.
    #[error("{0}")]
    Danger(String),
    /// No answer: the server is away, or its permissions do not allow the request.
    #[error("{0}")]
    Silent(String),
    #[error("{0}")]
    Refused(String),
}

/// The client's own request timeout does not bound a request that cannot even be sent; this does.
const CALL_TIMEOUT: Duration = Duration::from_secs(7);

#[derive(Deserialize)]
struct StoredMessage {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    subject: String,
    seq: i64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl Api {
    /// Requests go over this connection.
    pub fn new(connection: &Connection) -> Self {
        let client = connection.client.clone();
        let context = jetstream::context::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client);
        Self { connection: connection.clone(), context }
    }

    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// Whether the client itself has ended.
    pub(crate) async fn is_dead(&self) -> bool {
        self.connection.is_dead().await
    }

    async fn call<T: DeserializeOwned>(&self, subject: String, payload: &impl Serialize) -> Result<T, ApiError> {
        let request = self.context.request::<_, _, Response<T>>(subject.clone(), payload);
        let mut connected = self.connection.connected.clone();
        // The first connection may be counted only after the first request.
        let times_before = (*connected.borrow()).max(1);
        let answer = tokio::select! {
            answer = tokio::time::timeout(CALL_TIMEOUT, request) => answer,
            // The answer went to the connection before.
            Ok(_) = connected.wait_for(|times| *times > times_before) => {
                return Err(ApiError::Silent(format!("no answer to {subject}: the connection was made anew meanwhile")));
            }
        };
        match answer {
            Ok(Ok(Response::Ok(answer))) => Ok(answer),
            Ok(Ok(Response::Err { error })) => Err(match error.error_code() {
                ErrorCode::STREAM_NOT_FOUND => ApiError::StreamNotFound,
                ErrorCode::CONSUMER_NOT_FOUND => ApiError::ConsumerNotFound,
                ErrorCode::NO_MESSAGE_FOUND => ApiError::MessageNotFound,
                ErrorCode::CONSUMER_ALREADY_EXISTS => ApiError::ConsumerExists,
                _ => ApiError::Refused(format!("the NATS server refuses {subject}: {error}")),
            }),
            Ok(Err(error)) => Err(ApiError::Silent(format!("no answer to {subject}: {error}"))),
            Err(_) => Err(ApiError::Silent(format!("no answer to {subject}"))),
        }
    }

    /// A stream's configuration and state.
    pub async fn stream_info(&self, stream: &str) -> Result<stream::Info, ApiError> {
        self.call(format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    /// The same, with every sequence that was removed from between others.
    pub(crate) async fn stream_info_with_deleted(&self, stream: &str) -> Result<stream::Info, ApiError> {
        self.call(format!("STREAM.INFO.{stream}"), &json!({ "deleted_details": true })).await
    }

    /// A stream's name and the moment it was made.
    pub async fn incarnation(&self, stream: &str) -> Result<Incarnation, ApiError> {
        Ok(incarnation_of(stream, &self.stream_info(stream).await?))
    }

    /// Makes a stream that does not exist.
    pub async fn create_stream(&self, config: &stream::Config) -> Result<stream::Info, ApiError> {
        self.call(format!("STREAM.CREATE.{}", config.name), config).await
    }

    pub async fn update_stream(&self, config: &stream::Config) -> Result<stream::Info, ApiError> {
        self.call(format!("STREAM.UPDATE.{}", config.name), config).await
    }

    pub async fn consumer_info(&self, stream: &str, name: &str) -> Result<consumer::Info, ApiError> {
        self.call(format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
    }

    /// Deletes a consumer. One that is not there is no error.
    pub(crate) async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        match self.call::<Value>(format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await {
            Ok(_) | Err(ApiError::ConsumerNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a consumer. It must not exist.
    pub(crate) async fn create_consumer(
        &self,
        stream: &str,
        config: &consumer::Config,
    ) -> Result<consumer::Info, ApiError> {
        self.put_consumer(stream, config, "create").await
    }

    /// Changes a consumer. It must exist.
    pub(crate) async fn update_consumer(
        &self,
        stream: &str,
        config: &consumer::Config,
    ) -> Result<consumer::Info, ApiError> {
        self.put_consumer(stream, config, "update").await
    }

    async fn put_consumer(
        &self,
        stream: &str,
        config: &consumer::Config,
        action: &str,
    ) -> Result<consumer::Info, ApiError> {
        let name = config.name.as_deref().unwrap_or_default();
        let request = json!({ "stream_name": stream, "config": config, "action": action });
        self.call(format!("CONSUMER.CREATE.{stream}.{name}.{}", config.filter_subject), &request).await
    }

    /// The newest message on a subject: its sequence, its header block and its bytes.
    pub(crate) async fn last_message(&self, stream: &str, subject: &str) -> Result<(u64, Vec<u8>, Vec<u8>), ApiError> {
        let request = json!({ "last_by_subj": subject });
        let stored: StoredMessage = self.call(format!("STREAM.MSG.GET.{stream}"), &request).await?;
        let RawMessage { seq, hdrs, data, .. } = stored.message;
        Ok((u64::try_from(seq).unwrap_or(0), decode(&hdrs)?, decode(&data)?))
    }

    /// The subject and the bytes of the message at a sequence; `None` where the stream holds none.
    pub(crate) async fn subject_and_bytes_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<(String, Vec<u8>)>, ApiError> {
        let request = json!({ "seq": sequence });
        match self.call::<StoredMessage>(format!("STREAM.MSG.GET.{stream}"), &request).await {
            Ok(StoredMessage { message }) => Ok(Some((message.subject, decode(&message.data)?))),
            Err(ApiError::MessageNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first message of a lane at or after a sequence, read from the stream itself and not through a consumer. Its
    /// headers come as bytes, so it is readable whatever they hold.
    pub async fn next_message(
        &self,
        incarnation: &Incarnation,
        lane: Lane,
        sequence: i64,
    ) -> Result<Message, ApiError> {
        self.next_on_subject(incarnation, &lane.filter(), sequence).await
    }

    /// The same of any subject.
    pub async fn next_message_of_any(&self, incarnation: &Incarnation, sequence: i64) -> Result<Message, ApiError> {
        self.next_on_subject(incarnation, ">", sequence).await
    }

    /// The same of one subject, which may have wildcards.
    pub(crate) async fn next_on_subject(
        &self,
        incarnation: &Incarnation,
        subject: &str,
        sequence: i64,
    ) -> Result<Message, ApiError> {
        self.read(incarnation, &json!({ "seq": sequence, "next_by_subj": subject })).await
    }

    /// The message at a sequence; `None` where the stream holds none.
    pub async fn message_at(&self, incarnation: &Incarnation, sequence: i64) -> Result<Option<Message>, ApiError> {
        if_any(self.read(incarnation, &json!({ "seq": sequence })).await)
    }

    async fn read(&self, incarnation: &Incarnation, request: &Value) -> Result<Message, ApiError> {
        let stored: StoredMessage = self.call(format!("STREAM.MSG.GET.{}", incarnation.stream), request).await?;
        let raw = stored.message;
        let headers = decode(&raw.hdrs)?;
        let stored_at = unix_ns(&raw.time).ok_or_else(|| ApiError::Refused(format!("a broken time: {}", raw.time)))?;
        Ok(Message {
            incarnation: incarnation.clone(),
            sequence: raw.seq,
            subject: storable_subject(&raw.subject),
            server_time_ns: stored_at,
            headers: if headers.is_empty() { Headers::NONE } else { Headers::from_block(&headers) },
            payload: decode(&raw.data)?.into(),
        })
    }
}

/// That there is no such message is an answer, where it was asked for.
pub(crate) fn if_any(read: Result<Message, ApiError>) -> Result<Option<Message>, ApiError> {
    match read {
        Ok(message) => Ok(Some(message)),
        Err(ApiError::MessageNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which incarnation a stream's state is of.
pub(crate) fn incarnation_of(stream: &str, info: &stream::Info) -> Incarnation {
    let created_ns = i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    Incarnation { stream: Arc::from(stream), created_ns }
}

/// The server's number of a message, as the ledger stores it. No stream comes near the end of these.
pub(crate) fn sequence_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn decode(text: &str) -> Result<Vec<u8>, ApiError> {
    BASE64.decode(text).map_err(|error| ApiError::Refused(format!("a broken answer: {error}")))
}
