//! Completes the description of the API: what is so of every address is written here once.

use crate::console::fault::{PROBLEM_TYPE, ProblemDetails};
use axum::http::StatusCode;
use utoipa::PartialSchema as _;
use utoipa::ToSchema as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi, Ref, RefOr, Response};

/// What any address may answer in place of what was asked for.
const REFUSALS: [StatusCode; 4] =
    [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];

const TOKEN: &str = "token";

/// Gives each address its refusals, each refusal its type, each response a sentence, and the whole its way of signing in.
pub(crate) fn complete(description: &mut OpenApi) {
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        let responses = &mut operation.responses.responses;
        for status in REFUSALS {
            responses.entry(status.as_str().to_owned()).or_insert_with(|| RefOr::T(Response::default()));
        }
        for (status, response) in responses {
            let status = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_default();
            if let RefOr::T(response) = response {
                complete_response(status, response);
            }
        }
    }
    let components = description.components.get_or_insert_with(Components::new);
    components.schemas.insert(ProblemDetails::name().into_owned(), ProblemDetails::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("A token of console.tokens. Where none is listed, none is needed."));
    components.add_security_scheme(TOKEN, SecurityScheme::Http(bearer.build()));
    description.security = Some(vec![SecurityRequirement::new(TOKEN, [""; 0])]);
}

fn complete_response(status: StatusCode, response: &mut Response) {
    if response.description.is_empty() {
        status.canonical_reason().unwrap_or("As its number says").clone_into(&mut response.description);
    }
    if status.is_client_error() || status.is_server_error() {
        let problem = Content::new(Some(Ref::from_schema_name(ProblemDetails::name())));
        response.content = [(PROBLEM_TYPE.to_owned(), RefOr::T(problem))].into_iter().collect();
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = path;
    [get, put, post, delete, patch].into_iter().flatten()
}
