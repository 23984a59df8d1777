//! The maximum lengths, in characters, of fields that several kinds of records have (LDG-002, the columns of its
//! tables).

pub(crate) const EVENT_ID_CHARS_MAX: usize = 255;
/// `actor VARCHAR(50)`.
pub(crate) const ACTOR_CHARS_MAX: usize = 50;
/// `outcome VARCHAR(32)`.
pub(crate) const OUTCOME_CHARS_MAX: usize = 32;
pub(crate) const TASK_ID_CHARS_MAX: usize = 255;
/// RFC 3339 with nanoseconds has 35.
pub(crate) const TIMESTAMP_CHARS_MAX: usize = 64;
