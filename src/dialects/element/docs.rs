//! Writes `docs/element.md` from the table of methods and the list of errors.

use std::fmt::Write as _;

use super::error::NAMES;
use super::methods::METHODS;

/// The text of the document.
pub fn methods() -> String {
    let mut text = String::from(
        "# NetApp Element's API\n\n\
         Every method at `POST /json-rpc/<version>`, with HTTP Basic: a user's e-mail address and \
         password. The version can be any; a body\nis `{\"method\":…,\"params\":{…},\"id\":…}`, the \
         answer `{\"id\":…,\"result\":{…}}` or `{\"id\":…,\"error\":{\"code\":500,\"name\":…,\
         \"message\":…}}`.\nParameters that a method does not know come back under `unusedParameters`.\n\
         Each request is a login: a user who sends more than `limits.logins_per_s` allows gets status \
         429 with `Retry-After`.\n\n\
         A user is a cluster administrator. `clusterAdminID` is the last 53 bits of the user's id. \
         Super administrators and super operators see\neverything, administrators of an \
         organisation the sessions that are in it or below it, everybody their own; what a caller \
         may not see does\nnot exist. Sessions of users have the `authMethod` `Cluster` and the \
         e-mail address as `username`; those of applications `Idp` and the key of\ntheir thing. \
         `lastAccessTimeout` is when the session expires if it is not used, `finalTimeout` when it \
         expires in any case: the end of the\nyear 9999 for one that lives as long as its \
         connection. One's own sessions end as `LOGGED_OUT`, others' as `REVOKED`.\n",
    );
    for method in METHODS {
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\nWho: {}. Result: {}.\n",
            method.name, method.doc, method.right, method.result
        );
        if !method.params.is_empty() {
            text.push_str("\n| parameter | type | | meaning |\n| --- | --- | --- | --- |\n");
        }
        for param in method.params {
            let required = if param.required { "required" } else { "" };
            let _ = writeln!(
                text,
                "| `{}` | {} | {required} | {} |",
                param.name, param.expected, param.doc
            );
        }
    }
    text.push_str("\n## Errors\n\n| name | meaning | source |\n| --- | --- | --- |\n");
    for info in NAMES {
        let _ = writeln!(text, "| `{}` | {} | {} |", info.name, info.meaning, info.source);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_document_is_that_of_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/element.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, super::methods()).expect("a writable docs folder");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == super::methods(),
            "docs/element.md is out of date: UPDATE_DOCS=1 cargo test -p tr50d --lib document"
        );
    }
}
