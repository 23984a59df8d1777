//! Budgets: each agent's day against the limit in force, and the alerts when its status changes.

pub mod days;
pub mod queue;
pub mod status;
pub mod stream;
