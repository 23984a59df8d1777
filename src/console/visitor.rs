//! The visitor of a request: the name that decisions are recorded under, and what they may do.

use crate::http::console_token::Role;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use maud::{Markup, html};
use std::convert::Infallible;

/// Whoever a request comes from. Every handler behind the guard can extract it.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What the forms of this session carry. `None`: there is no session, so no form changes anything.
    form_key: Option<String>,
}

tokio::task_local! {
    /// The visitor that a page is made for: its frame shows the name.
    pub(crate) static VISITOR: Visitor;
}

/// The field of a form that shows that it comes from a page of this session.
pub(crate) const FORM_KEY_FIELD: &str = "form_key";

impl Visitor {
    /// Anybody on this machine, where the settings let in nobody in particular.
    pub(crate) fn of_this_machine() -> Self {
        Self { name: "this machine".to_owned(), role: Role::Read, form_key: None }
    }

    /// A program that sent its token.
    pub(crate) fn program(name: &str, role: Role) -> Self {
        Self { name: name.to_owned(), role, form_key: None }
    }

    /// A person who has signed in.
    pub(crate) fn person(name: &str, role: Role, form_key: String) -> Self {
        Self { name: name.to_owned(), role, form_key: Some(form_key) }
    }

    /// Whether pages show the forms that change something.
    pub(crate) fn may_operate(&self) -> bool {
        self.role == Role::Operate && self.form_key.is_some()
    }

    pub(crate) fn form_key(&self) -> Option<&str> {
        self.form_key.as_deref()
    }

    /// The hidden field that every form needs that changes something.
    pub(crate) fn form_field(&self) -> Markup {
        html! {
            @if let Some(key) = &self.form_key { input type="hidden" name=(FORM_KEY_FIELD) value=(key); }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().expect("the guard stands before every handler with a visitor").clone())
    }
}
