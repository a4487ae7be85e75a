//! Clients that generators make of `/openapi.json`: openapi-python-client and openapi-typescript. They run
//! when `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! [`outside_clients`]: super::outside_clients

use std::path::{Path, PathBuf};
use std::process::Command;

use support::TestServer;
use support::http::send;

use super::outside_clients::{Running, wanted};
use super::paho::python;

/// The folder of the clients that `tests/run` installs.
fn outside() -> PathBuf {
    Path::new(&python()).parent().and_then(Path::parent).expect("an environment").to_owned()
}

/// The document of a server, in a file of this folder.
async fn document(server: &TestServer, dir: &Path) -> PathBuf {
    let path = dir.join("openapi.json");
    let text = send(server, "GET /openapi.json HTTP/1.1", b"").await.body;
    std::fs::write(&path, text).expect("written");
    path
}

/// Runs a generator or a compiler, which may take a while.
async fn run(mut command: Command) {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran");
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (out, err) = (output.stdout.escape_ascii(), output.stderr.escape_ascii());
    assert!(output.status.success(), "{shown}: {out} {err}");
}

/// Runs a client to its end.
async fn does_well(mut command: Command, server: &TestServer) {
    command.args([&format!("http://{}", server.address("http")), "basic-org"]);
    let client = Running::start(command);
    let done = tokio::task::spawn_blocking(move || {
        assert_eq!(client.line(), "the client did well");
        client.ends_well();
    });
    done.await.expect("it did");
}

#[tokio::test]
async fn a_client_made_for_python_works() {
    if !wanted() {
        return;
    }
    let (server, dir) = (TestServer::start(), tempfile::tempdir().expect("a directory"));
    let document = document(&server, dir.path()).await;
    let mut generator = Command::new(outside().join("bin/openapi-python-client"));
    // It calls a formatter that is installed with it.
    let others = std::env::var("PATH").unwrap_or_default();
    generator.env("PATH", format!("{}:{others}", outside().join("bin").display()));
    generator.args(["generate", "--meta", "none", "--fail-on-warning", "--path"]).arg(&document);
    generator.arg("--output-path").arg(dir.path().join("tr50d_client"));
    run(generator).await;
    let mut client = Command::new(python());
    client.env("PYTHONPATH", dir.path());
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/openapi_client.py"));
    does_well(client, &server).await;
}

#[tokio::test]
async fn a_client_with_types_for_typescript_works() {
    if !wanted() {
        return;
    }
    let (server, dir) = (TestServer::start(), tempfile::tempdir().expect("a directory"));
    let document = document(&server, dir.path()).await;
    let bin = outside().join("node_modules/.bin");
    let mut generator = Command::new(bin.join("openapi-typescript"));
    generator.arg(&document).arg("-o").arg(dir.path().join("tr50d.d.ts"));
    run(generator).await;
    let script = dir.path().join("openapi_client.ts");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/openapi_client.ts");
    std::fs::copy(source, &script).expect("copied");
    let mut compiler = Command::new(bin.join("tsc"));
    compiler.args([
        "--strict",
        "--target",
        "es2022",
        "--module",
        "commonjs",
        "--lib",
        "es2022,dom",
    ]);
    compiler.args(["--skipLibCheck", "--outDir"]).arg(dir.path()).arg(&script);
    run(compiler).await;
    let mut client = Command::new("node");
    client.arg(dir.path().join("openapi_client.js"));
    does_well(client, &server).await;
}
