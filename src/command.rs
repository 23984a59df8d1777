//! Code that the commands share: exit codes, failures, connections, output and progress.

pub(crate) mod connect;
pub(crate) mod moment;
pub(crate) mod output;
pub(crate) mod own_events;
pub(crate) mod progress;
pub(crate) mod rules;
pub(crate) mod runs;

use std::fmt;

/// The exit codes; those above 63 are sysexits.h's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It could not be done.
    Failed = 1,
    /// A check found a difference.
    Difference = 3,
    /// The command line cannot be understood.
    Usage = 64,
    Unavailable = 69,
    /// The configuration, or what it points to, must be mended first.
    Configuration = 78,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string() }
    }
}
