//! Forms that change something: they must come from a page of the visitor's own session.

use crate::console::fault::Fault;
use crate::console::visitor::{FORM_KEY_FIELD, Visitor};
use crate::http::console_token::Role;
use crate::http::hashed_tokens::is_same_secret;
use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// A form of somebody who has signed in.
#[derive(Debug)]
pub(crate) struct SessionForm<T> {
    pub(crate) visitor: Visitor,
    pub(crate) fields: T,
}

/// The same of somebody who may operate.
#[derive(Debug)]
pub(crate) struct OperatorForm<T> {
    /// The decision is recorded under this visitor's name.
    pub(crate) visitor: Visitor,
    pub(crate) fields: T,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for SessionForm<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let (mut parts, body) = request.into_parts();
        let visitor = visitor_of(&mut parts, state).await;
        let key = visitor.form_key().ok_or(Fault::Forbidden(
            "forms are for those who sign in at /login with a token that console.tokens lists",
        ))?;
        let request = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(request, state).await.map_err(refused)?;
        let all: HashMap<String, String> = fields(&parts, bytes.clone(), state).await?;
        if !all.get(FORM_KEY_FIELD).is_some_and(|given| is_same_secret(given.as_bytes(), key.as_bytes())) {
            return Err(Fault::Forbidden(
                "the form is not of your session: open its page again, and send it from there",
            ));
        }
        Ok(Self { fields: fields(&parts, bytes, state).await?, visitor })
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OperatorForm<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let SessionForm { visitor, fields } = SessionForm::from_request(request, state).await?;
        if visitor.role != Role::Operate {
            return Err(Fault::Forbidden("this needs a token with the role `operate`; yours has `read`"));
        }
        Ok(Self { visitor, fields })
    }
}

async fn visitor_of<S: Sync>(parts: &mut Parts, state: &S) -> Visitor {
    use axum::extract::FromRequestParts as _;
    let Ok(visitor) = Visitor::from_request_parts(parts, state).await;
    visitor
}

async fn fields<T: DeserializeOwned, S: Send + Sync>(parts: &Parts, bytes: Bytes, state: &S) -> Result<T, Fault> {
    let request = Request::from_parts(parts.clone(), Body::from(bytes));
    let Form(fields) = Form::from_request(request, state).await.map_err(refused)?;
    Ok(fields)
}

fn refused(rejection: impl IntoResponse + ToString) -> Fault {
    let why = rejection.to_string();
    let status: StatusCode = rejection.into_response().status();
    Fault::Request { status, why }
}
