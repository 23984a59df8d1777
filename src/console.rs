//! The console: `ledgerd console` shows the record to people, programs and agents. It reads with a login of its own, and the
//! daemon knows nothing of it.

mod access;
pub(crate) mod api;
mod assets;
pub(crate) mod command;
mod cures;
mod elements;
mod failed_logins;
mod fault;
mod form;
mod guard;
mod layout;
mod live;
mod operator;
mod pages;
mod router;
mod sessions;
mod site;
pub(crate) mod verifier;
mod visitor;
