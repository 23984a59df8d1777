//! The names under which custody keeps the program's own audit events. No server has a stream of these names.

/// The subject of every event of the program.
pub const SUBJECT: &str = "ledger.SYS.ARCHITECT";

/// Each migration; the sequence is its version.
pub const MIGRATIONS: &str = "ledgerd";
/// Each export of expired rows; the sequence is its number. Migration 7 knows the name.
pub const EXPORTS: &str = "ledgerd-retention";
/// Each authorised deletion; the sequence is its number.
pub const ERASURES: &str = "ledgerd-erasure";
/// Each decision about a dead letter; the sequence is its number.
pub const RESOLUTIONS: &str = "ledgerd-dlq";
/// Each repaired row.
pub const REPAIRS: &str = "ledgerd-repair";
