//! The one OpenAPI document: TR50's commands below `/rest/_/`, and Cognite's API. It is served at
//! `/openapi.json`, and committed as `docs/openapi.json`.

use std::sync::LazyLock;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::dialects::cognite;
use crate::tr50;

const WRITTEN: &str = "a document of texts and numbers";

/// Its parts in the order in which people read them.
#[derive(Serialize)]
struct Document {
    openapi: Value,
    info: Value,
    security: Value,
    tags: Value,
    paths: Value,
    components: Value,
}

static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut document = serde_json::to_value(cognite::openapi::described()).expect(WRITTEN);
    tr50::openapi::add_to(&mut document);
    let part = |name: &str| document.get(name).cloned().unwrap_or_default();
    let ordered = Document {
        openapi: part("openapi"),
        info: part("info"),
        security: part("security"),
        tags: part("tags"),
        paths: part("paths"),
        components: part("components"),
    };
    let mut text = serde_json::to_string_pretty(&ordered).expect(WRITTEN);
    text.push('\n');
    text.into()
});

/// The document, as JSON.
pub fn document() -> Bytes {
    TEXT.clone()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
                let is_command = path.starts_with("/rest/_/");
                let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
                assert!(is_open || operation["responses"]["401"].is_object(), "{path}");
                let failures = operation["responses"].as_object().expect("responses");
                for (status, failure) in failures {
                    if !status.starts_with('4') {
                        continue;
                    }
                    if is_command {
                        let named = format!("#/components/responses/Failure{status}");
                        assert_eq!(failure["$ref"], named, "{path}");
                        let response = &document["components"]["responses"];
                        assert!(response[format!("Failure{status}")].is_object(), "{named}");
                        continue;
                    }
                    let schema = &failure["content"]["application/json"]["schema"];
                    assert_eq!(schema["$ref"], "#/components/schemas/Error", "{path} {status}");
                }
            }
        }
    }

    #[test]
    fn every_command_has_a_path() {
        let document = parsed();
        let paths = document["paths"].as_object().expect("paths");
        let commands = paths.keys().filter_map(|path| path.strip_prefix("/rest/_/"));
        let table: Vec<_> = tr50::commands::COMMANDS.iter().map(|info| info.name).collect();
        assert_eq!(commands.collect::<Vec<_>>(), table);
        let publish = &document["paths"]["/rest/_/property.publish"]["post"];
        let body = &publish["requestBody"]["content"]["application/json"];
        assert_eq!(body["schema"]["required"], serde_json::json!(["key", "value"]));
        assert_eq!(body["schema"]["properties"]["value"]["type"], "number");
        assert_eq!(body["example"]["key"], "key");
    }
}
