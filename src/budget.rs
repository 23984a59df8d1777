//! The daily budgets of the agents: the spending of each day, the limit in force, and the alerts when a status changes.

pub mod days;
pub mod gate;
pub mod gate_subject;
pub mod queue;
pub mod status;
pub mod stream;
