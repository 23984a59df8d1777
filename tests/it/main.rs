//! The daemon as a user meets it: the real program between a real nats-server and a real PostgreSQL.

/// Servers, faults, good and bad events, and the check of the whole ledger.
#[expect(dead_code, reason = "the vocabulary is larger than what the tests of one day say with it")]
mod support;

/// The support itself: servers stop and come back, the proxy holds what it should.
mod support_holds;

/// What becomes of a message.
mod readme;
mod records;

/// Events of one id that are no conflict.
mod repeated_ids;

/// The programs of the public repository, as they are.
mod hegemon;

/// Subscribers that answer what the daemon publishes.
mod foreign_answers;

/// The tables beside `audit_events`.
mod tables;

/// What calls cost that do not say so.
mod rates;

/// Starting: what is waited for, and what is an error at once.
mod starting;

/// The tree in the commit.
mod tree;

/// Signed checkpoints.
mod checkpoints;

/// PostgreSQL goes away, fills up, refuses.
mod faults_postgres;

/// The nats-server goes away, loses a consumer, a leader, the stream.
mod faults_nats;

/// What each NATS user may do.
mod nats_access;

/// Passwords, keys, JWTs and certificates are rotated under load.
mod rotation;

/// A lane that stands still.
mod stalls;

/// Two and three instances, a replicated stream, a standby.
mod instances;

mod owners;

mod positions;

/// Prefixes that registry files add.
mod prefixes;

/// kill -9 at every instant that matters.
mod kills;

/// The stream, read again.
mod replay;

/// Every sequence is accounted for.
mod reconcile;

/// SIGTERM, a second SIGTERM, SIGHUP.
mod stopping;

/// Batches that wait at the same time are one transaction.
mod group_commit;

/// What describes the records, the subjects and the API to other programs.
mod schema;

/// The commands around the daemon.
mod commands;

/// Dead letters: found, published again, left to rest.
mod dlq;
/// A requeue puts one message into the stream, whatever happens.
mod dlq_once;

/// Access in PostgreSQL: four roles, and every way around append-only.
mod access;
/// What is past its time is archived, and only then removed.
mod retention;

/// What the Architect lets go from a permanent table, and nothing else.
mod erasure;
/// Proofs of entries.
mod prove;

/// The log over HTTP.
mod tiles;

/// What publishers hear that ask, and `emit --wait`.
mod receipts;
/// Verification by the program itself: it passes what the daemon did, and finds any tampering.
mod verify;

/// Custody in batches: what a commit writes, and how an entry is found again.
mod batches;
/// What must not cost more as the ledger grows.
mod growth;

/// Records that come in over HTTP.
mod webhooks;

/// Who gets in there, and who does not.
mod webhooks_access;

/// How many connections, and for how long.
mod listener;

/// The witness, and the log that asks it.
mod witness;

/// Everything rewritten consistently, old states, and the specification's own hash.
mod verify_rewrites;

/// Anchors and witnesses bind the database.
mod verify_outside;

/// Damaged rows are made anew from custody.
mod verify_repairs;

/// The check of the whole ledger: it passes what the daemon did, and finds any damage.
mod check_finds;

/// The console.
mod console;
mod console_access;
mod console_browser;
mod console_record;
mod console_rejects;
mod console_schemathesis;
mod console_verifier;

/// Webhooks out: targets are told, each once for all they can see, whatever happens.
mod notify;
/// Receivers that are away, slow, or say no.
mod notify_faults;

/// The console: the timeline, its filters, cursors, files and live lines, and the commands that print the same.
mod console_timeline;

/// The console: stories of tasks and proposals, and the search.
mod console_search;
