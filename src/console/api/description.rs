//! Completes the description of the API: OpenAPI 3.1 asks for a sentence about each response.

use axum::http::StatusCode;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

/// Gives each response that has no sentence of its own the name of its status.
pub(crate) fn complete(description: &mut OpenApi) {
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && response.description.is_empty()
            {
                let named = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
                let sentence = named.and_then(|status| status.canonical_reason()).unwrap_or(status);
                sentence.clone_into(&mut response.description);
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = path;
    [get, put, post, delete, patch].into_iter().flatten()
}
