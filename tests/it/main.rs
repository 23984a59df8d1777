//! The daemon as a user meets it: the real program between a real nats-server and a real PostgreSQL.

/// Servers, faults, good and bad events, and the check of the whole ledger.
#[expect(dead_code, reason = "the vocabulary is larger than what the tests of one day say with it")]
mod support;

/// The support itself: servers stop and come back, the proxy holds what it should.
mod support_holds;

/// What becomes of a message.
mod records;

/// The tables beside `audit_events`.
mod tables;

/// Starting: what is waited for, and what is an error at once.
mod starting;

/// PostgreSQL goes away, fills up, refuses.
mod faults_postgres;

/// The nats-server goes away, loses a consumer, a leader, the stream.
mod faults_nats;

/// kill -9 at every instant that matters.
mod kills;

/// SIGTERM, a second SIGTERM, SIGHUP.
mod stopping;

/// The commands around the daemon.
mod commands;

/// Verification by the program itself: it passes what the daemon did, and finds any tampering.
mod verify;

/// Everything rewritten consistently, old states, and the specification's own hash.
mod verify_rewrites;

/// Damaged rows are made anew from custody.
mod verify_repairs;

/// The check of the whole ledger: it passes what the daemon did, and finds any damage.
mod check_finds;
