//! The OpenAPI description of this dialect, made from the types that are sent and the functions
//! that send them.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{orgs, principals, sessions};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tr50d",
        description = "The commands of TR50, each at a path below `/rest/_/`, and the sessions of \
            tr50d in the words of Cognite's organisation API below `/api/v1`. The bearer token is the \
            session id that `api.authenticate` or a login at `/rest/auth` answers; for Cognite's API it may be \
            an application's token. A command that fails has the body of `Failure`, and status 200 unless \
            `?status=http` asks for another. Below `/api/v1` every failure has the body of `Error` and nothing beside it. \
            Beyond the answers below: 404 for an unknown path, 405 with `Allow`, 408, 413 and 415 \
            for the body, 429 with `Retry-After` when somebody sends too much in a second, 503 \
            when the server is full. Every answer but 408, 413 and 415 has the header \
            `x-request-id`: the caller's own, or a fresh one. Bodies may be compressed with gzip or \
            deflate.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        principals::list,
        principals::by_ids,
        principals::me,
        sessions::list,
        sessions::revoke,
        orgs::org,
        orgs::below,
        orgs::projects,
        orgs::project,
        orgs::inspect,
    ),
    // Named by a parameter of a query only, where it is not found.
    components(schemas(principals::PrincipalType)),
    security(("bearer" = [])),
    modifiers(&Bearer),
    tags(
        (name = "Login sessions", description = "Who is logged in, and their end."),
        (name = "Principals", description = "Users and service accounts."),
        (name = "Organisations", description = "Organisations, their projects, and the caller's token."),
    ),
)]
struct Api;

/// Adds the one way in which callers show who they are.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// What there is to say of this dialect.
pub fn described() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ROUTES;
    use super::*;

    #[test]
    fn every_path_that_is_described_is_served_and_no_other() {
        let document = serde_json::to_value(described()).expect("JSON");
        let described = document["paths"].as_object().expect("paths").iter();
        let described = described.map(|(path, operations)| {
            let methods = operations.as_object().expect("operations").keys();
            (path.clone(), methods.cloned().collect::<Vec<_>>())
        });
        let served = ROUTES.iter().map(|route| {
            let method = if route.is_posted { "post" } else { "get" };
            (route.path.clone(), vec![method.to_owned()])
        });
        let served: BTreeMap<_, _> = served.collect();
        assert_eq!(served, described.collect());
    }
}
