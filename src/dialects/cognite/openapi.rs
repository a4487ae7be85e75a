//! The OpenAPI description of this dialect, made from the types that are sent and the functions
//! that send them. It is served at `/openapi.json`, and committed as `docs/openapi.json`.

use std::sync::LazyLock;

use bytes::Bytes;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{orgs, principals, sessions};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tr50d: organisations, principals and login sessions",
        description = "The sessions of tr50d in the words of Cognite's organisation API. The bearer \
            token is the session id that a login at `/api` or `/rest/auth` answers, or an \
            application's token. Every failure has the body of `Error` and nothing beside it. \
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

static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut text = Api::openapi().to_pretty_json().expect("a document of texts and numbers");
    text.push('\n');
    text.into()
});

/// The document, as JSON.
pub fn document() -> Bytes {
    TEXT.clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::Value;

    use super::super::ROUTES;
    use super::*;

    fn parsed() -> Value {
        serde_json::from_slice(&document()).expect("JSON")
    }

    #[test]
    fn the_document_in_docs_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, document()).expect("a writable docs folder");
        }
        let written = std::fs::read(&path).unwrap_or_default();
        let hint = "UPDATE_DOCS=1 cargo test -p tr50d --lib document";
        assert!(written == document(), "docs/openapi.json is out of date: {hint}");
    }

    #[test]
    fn every_path_that_is_described_is_served_and_no_other() {
        let document = parsed();
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

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = parsed();
        let text = document.to_string();
        let named: Vec<&str> = text
            .split("\"#/components/schemas/")
            .skip(1)
            .filter_map(|rest| rest.split_once('"').map(|(name, _)| name))
            .collect();
        assert!(named.contains(&"PrincipalType"), "{named:?}");
        for name in named {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn every_operation_says_what_it_does_and_how_it_fails() {
        let document = parsed();
        let paths = document["paths"].as_object().expect("paths");
        for (path, operations) in paths {
            for operation in operations.as_object().expect("operations").values() {
                assert!(operation["summary"].is_string(), "{path}");
                assert!(operation["responses"]["401"].is_object(), "{path}");
                let failures = operation["responses"].as_object().expect("responses");
                for (status, failure) in failures {
                    if !status.starts_with('4') {
                        continue;
                    }
                    let schema = &failure["content"]["application/json"]["schema"];
                    assert_eq!(schema["$ref"], "#/components/schemas/Error", "{path} {status}");
                }
            }
        }
    }
}
