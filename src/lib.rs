//! ledgerd
pub mod cli;
pub mod config;
pub mod domain;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod nats;
pub mod outbox;
pub mod pipeline;
pub mod postgres;
pub mod retry;
pub mod systemd;
pub mod telemetry;
pub mod tlog;
