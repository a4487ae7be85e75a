//! Cognite's own clients, unmodified: its SDK for Python and its toolkit. They run when
//! `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! Both have the vendor's address built in. A server with a certificate for it stands on loopback, and
//! the script's own proxy leads there.
//!
//! [`outside_clients`]: super::outside_clients

use std::process::Command;

use support::http::log_in;
use support::{SOON, TestServer, call, connect};
use tokio::time::timeout;

use super::cognite::{VIEWER, many_viewers};
use super::outside_clients::{Running, wanted};
use super::paho::python;

/// More than two pages of them, and more than one of sessions.
const ACCOUNTS: usize = 250;
const SESSIONS: usize = 219;

#[tokio::test]
async fn the_sdk_and_the_toolkit_list_and_end_sessions() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let names = ["auth.cognite.com".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).expect("a pair");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let server = TestServer::with(&[
        ("TR50D_TLS__CERT", &text(&certificate)),
        ("TR50D_TLS__KEY", &text(&key)),
        ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
    ]);
    let mut operator = server.operator("tcp").await;
    for number in 0..ACCOUNTS {
        call(&mut operator, "app.create", &format!(r#"{{"name":"app-{number}"}}"#)).await;
    }
    many_viewers(&server, SESSIONS - 1).await;
    let url = server.url("mqtt", "viewer@basicorg.example", "demo-viewer-password");
    let mut viewer = connect(&url).await;

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/cognite_sdk.py");
    let session = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let mut command = Command::new(python());
    command.env("SSL_CERT_FILE", &certificate);
    command.args([script, &server.address("https").port().to_string(), &session, VIEWER]);
    // Beside the new applications there are two of the demo and two users.
    let principals = ACCOUNTS + 4;
    command.args([&SESSIONS.to_string(), &principals.to_string(), "demo-token-yorkorg"]);
    let client = Running::start(command);
    let done = tokio::task::spawn_blocking(move || {
        assert_eq!(client.line(), "the SDK did well");
        assert_eq!(client.line(), "the toolkit did well");
        client.ends_well();
    });
    done.await.expect("both do well");
    timeout(SOON, viewer.closed()).await.expect("its connection closes");
    let live = call(&mut operator, "session.list", r#"{"userName":"viewer@basicorg.example"}"#);
    assert_eq!(live.await["count"], 0);
}
