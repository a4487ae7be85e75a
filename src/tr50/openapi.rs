//! The commands in the words of OpenAPI: one path for each below `/rest/_/`, made from the table.

use std::collections::BTreeSet;

use base::{CODES, Code};
use serde_json::{Map, Value, json};

use super::commands::COMMANDS;
use super::params::Field;
use super::step::CommandInfo;

/// What every command can fail with.
const OF_ALL: [Code; 7] = [
    Code::MALFORMED,
    Code::PARAMETER_INVALID,
    Code::TOO_LARGE,
    Code::RATE_LIMITED,
    Code::BUSY,
    Code::STORE_UNAVAILABLE,
    Code::INTERNAL,
];

/// What every command can fail with that needs a session.
const IN_SESSION: [Code; 3] =
    [Code::SESSION_INVALID, Code::AUTHENTICATION_MISSING, Code::PERMISSION_DENIED];

/// Adds the commands to a document that describes other paths.
pub fn add_to(document: &mut Value) {
    for info in COMMANDS.iter() {
        document["paths"][format!("/rest/_/{}", info.name)] = json!({ "post": operation(info) });
    }
    let components = &mut document["components"];
    components["schemas"]["Failure"] = failure_schema();
    for status in CODES.iter().map(|info| info.http_status).collect::<BTreeSet<_>>() {
        components["responses"][response_name(status)] = response_of(status);
    }
    components["securitySchemes"]["sessionId"] = json!({
        "type": "apiKey", "in": "header", "name": "sessionId",
        "description": "The session's id, as devices send it."
    });
    let families: BTreeSet<_> = COMMANDS.iter().map(|info| family(info.name)).collect();
    let tags = families.into_iter().map(|family| {
        json!({ "name": family, "description": format!("Commands that begin with `{family}.`.") })
    });
    if let Some(known) = document["tags"].as_array_mut() {
        known.extend(tags);
    }
}

fn family(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn operation(info: &CommandInfo) -> Value {
    let params = (info.params)();
    let security = match info.is_open() {
        true => json!([]),
        false => json!([{ "bearer": [] }, { "sessionId": [] }]),
    };
    json!({
        "tags": [family(info.name)],
        "operationId": info.name,
        "summary": summary(info.doc),
        "description": description(info),
        "parameters": [{
            "name": "status",
            "in": "query",
            "required": false,
            "description": "`http`: a failure has a status of its own; else it is 200, too.",
            "schema": { "type": "string" },
            "example": "http"
        }],
        "requestBody": {
            "required": params.iter().any(|field| field.required),
            "content": { "application/json": {
                "schema": params_schema(&params),
                "example": example(&params)
            } }
        },
        "responses": responses(info),
        "security": security
    })
}

/// The first sentence.
pub(super) fn summary(doc: &str) -> &str {
    doc.split_inclusive(". ").next().unwrap_or(doc).trim_end()
}

fn description(info: &CommandInfo) -> String {
    let CommandInfo { doc, name, .. } = info;
    let mut text = format!("{doc}\n\nPermission: `{name}`.");
    if info.is_open() {
        text = format!("{doc}\n\nIt needs no session.");
    }
    let codes: Vec<_> = info.errors.iter().map(|code| code.0.to_string()).collect();
    if !codes.is_empty() {
        text += &format!(" Failures of its own: {}.", codes.join(", "));
    }
    text
}

fn params_schema(params: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in params {
        let mut schema = schema_of(field.expected);
        schema["description"] = field.doc.into();
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<_> =
        params.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The schema of what a parameter must be. Clients may write numbers and booleans as texts; those that are
/// made from this need not.
fn schema_of(expected: &str) -> Value {
    match expected {
        "true or false" => json!({ "type": "boolean" }),
        "a number" => json!({ "type": "number" }),
        "a whole number from 0" => json!({ "type": "integer", "minimum": 0 }),
        "a whole number" => json!({ "type": "integer" }),
        "an array of strings" => json!({ "type": "array", "items": { "type": "string" } }),
        "an array of objects" => json!({ "type": "array", "items": { "type": "object" } }),
        _ if expected == "an object" || expected.starts_with("an object ") => {
            json!({ "type": "object" })
        }
        "a JSON value" | "anything" => json!({}),
        _ if expected.starts_with("an RFC 3339 time") => {
            json!({ "type": "string", "format": "date-time" })
        }
        _ if expected.ends_with("of 24 hexadecimal digits") => {
            json!({ "type": "string", "pattern": "^[0-9a-f]{24}$" })
        }
        _ if expected.ends_with("of 64 hexadecimal digits") => {
            json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
        }
        _ => json!({ "type": "string" }),
    }
}

/// The parameters that must be there, with values of their types.
pub(super) fn example(params: &[Field]) -> Value {
    let required = params.iter().filter(|field| field.required);
    let values = required.map(|field| {
        let schema = schema_of(field.expected);
        let value = match (field.name, schema["type"].as_str()) {
            ("lat", _) => json!(52.52),
            ("lng", _) => json!(13.405),
            (_, Some("boolean")) => json!(true),
            (_, Some("number")) => json!(21.5),
            (_, Some("integer")) => json!(1),
            (name, Some("array")) => match schema["items"]["type"].as_str() {
                Some("string") => json!([name]),
                _ => json!([{}]),
            },
            (_, Some("object")) | (_, None) => json!({}),
            _ if schema["format"] == "date-time" => json!("2021-08-10T14:16:10Z"),
            _ if schema["pattern"] == "^[0-9a-f]{24}$" => json!("5cf885f41c5bd771c8065be8"),
            (name, _) => json!(name),
        };
        (field.name.to_owned(), value)
    });
    Value::Object(values.collect())
}

fn responses(info: &CommandInfo) -> Value {
    let mut params = json!({ "type": "object" });
    let names = reply_members(info.reply);
    if !names.is_empty() {
        let member = |name: &&str| ((*name).to_owned(), member_schema(name));
        params["properties"] = Value::Object(names.iter().map(member).collect());
    }
    if !info.reply.is_empty() {
        params["description"] = info.reply.into();
    }
    let mut members = json!({ "success": {
        "type": "boolean",
        "description": "Whether it was carried out. Without `status` failures come so, too."
    } });
    if !info.reply.is_empty() {
        members["params"] = params;
    }
    members["errorCodes"] = json!({ "type": "array", "items": { "type": "integer" } });
    members["errorMessages"] = json!({ "type": "array", "items": { "type": "string" } });
    let schema = json!({ "type": "object", "required": ["success"], "properties": members });
    let mut responses = Map::new();
    let success = json!({
        "description": "The reply.",
        "content": { "application/json": { "schema": schema } }
    });
    responses.insert("200".to_owned(), success);
    let in_session = if info.is_open() { &[][..] } else { &IN_SESSION[..] };
    let missing = (info.params)().iter().any(|field| field.required);
    let missing = missing.then_some(&Code::PARAMETER_MISSING);
    let codes = info.errors.iter().chain(&OF_ALL).chain(in_session).chain(missing);
    for status in codes.map(|code| code.http_status()).collect::<BTreeSet<_>>() {
        let name = format!("#/components/responses/{}", response_name(status));
        responses.insert(status.to_string(), json!({ "$ref": name }));
    }
    Value::Object(responses)
}

/// The members of a reply that its line in the table begins with, as far as it names them one by one.
fn reply_members(reply: &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for part in reply.split(", ") {
        let Some((name, rest)) = part.strip_prefix('`').and_then(|part| part.split_once('`'))
        else {
            break;
        };
        names.push(name);
        let is_aside = rest.starts_with(" (") && rest.ends_with(')');
        if !rest.is_empty() && !is_aside {
            break;
        }
    }
    names
}

fn member_schema(name: &str) -> Value {
    match name {
        "count" => json!({ "type": "integer" }),
        "id" | "sessionId" | "orgKey" | "fileId" | "token" | "corrId" | "ts" => {
            json!({ "type": "string" })
        }
        _ => json!({}),
    }
}

fn failure_schema() -> Value {
    json!({
        "type": "object",
        "description": "Why a command failed. Codes are in docs/errors.md.",
        "required": ["success", "errorCodes", "errorMessages"],
        "properties": {
            "success": { "type": "boolean", "description": "It is false." },
            "errorCodes": { "type": "array", "items": { "type": "integer" } },
            "errorMessages": { "type": "array", "items": { "type": "string" } }
        }
    })
}

fn response_name(status: u16) -> String {
    format!("Failure{status}")
}

fn response_of(status: u16) -> Value {
    let codes = CODES.iter().filter(|info| info.http_status == status);
    let lines: Vec<_> = codes.map(|info| format!("{}: {}", info.code.0, info.meaning)).collect();
    let mut response = json!({
        "description": lines.join("\n\n"),
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Failure" } } }
    });
    if matches!(status, 429 | 503) {
        let seconds = "Seconds after which the request should be sent again.";
        response["headers"] = json!({ "Retry-After": {
            "description": seconds, "schema": { "type": "integer" }
        } });
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parameter_must_be_has_a_schema() {
        // What is none of these is a text, and begins so.
        let texts =
            ["a string", "a name of", "a thing key of", "a file name of", "a duration", "a time"];
        for info in COMMANDS.iter() {
            for field in (info.params)() {
                let is_text = schema_of(field.expected) == json!({ "type": "string" });
                let known = texts.iter().any(|text| field.expected.starts_with(text));
                assert!(!is_text || known, "{} {}: {}", info.name, field.name, field.expected);
            }
        }
    }

    #[test]
    fn members_of_replies_are_those_that_are_named_first() {
        let check =
            |reply, expected: &[&str]| assert_eq!(reply_members(reply), expected, "{reply}");
        check("", &[]);
        check("the thing", &[]);
        check("`id`", &["id"]);
        check("`count`, `result`, an array of `id`, `ts`", &["count", "result"]);
        check("`state`, `duration` (milliseconds), `msg`", &["state", "duration", "msg"]);
        check("`count`, `values`, an array; with `split`: `ts`", &["count", "values"]);
        check("`messages`: each with `id`, `from`", &["messages"]);
    }
}
