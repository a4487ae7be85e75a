//! The programs in `examples/`, each with the server that one of them has inside.

use client::Client;
use support::{SOON, call, connect};
use tokio::time::timeout;

#[expect(dead_code, reason = "main: the functions that it calls are tested")]
#[path = "../../examples/client.rs"]
mod client_example;
#[expect(dead_code, reason = "main: the functions that it calls are tested")]
#[path = "../../examples/device.rs"]
mod device_example;
#[expect(dead_code, reason = "main: the functions that it calls are tested")]
#[path = "../../examples/embed.rs"]
mod embed_example;

use embed_example::{connected, start, url};

const MOWER: &str = "mower-1:demo-token-basicorg";
const OPERATOR: &str = "operator@basicorg.example:demo-operator-password";

#[tokio::test]
async fn an_embedded_server_says_who_is_connected_until_it_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path()).await.expect("a server");
    assert_eq!(connected(&server), [""; 0]);
    let mqtt = url(&server, "mqtt", MOWER).parse().expect("a URL");
    let mut device = connect(&mqtt).await;
    let lines = connected(&server);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("mower-1 of BasicOrg over mqtt from 127.0.0.1:"), "{lines:?}");
    server.stop().await;
    timeout(SOON, device.closed()).await.expect("the stop closes connections");
    assert!(Client::connect(&mqtt).await.is_err());
}

#[tokio::test]
async fn the_client_lists_sessions_and_leaves_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path()).await.expect("a server");
    let _device = connect(&url(&server, "mqtt", MOWER).parse().expect("a URL")).await;
    let operator = url(&server, "http", OPERATOR).parse().expect("a URL");
    let lines = client_example::sessions(&operator).await.expect("a listing");
    assert_eq!(lines.len(), 3, "{lines:?}");
    let check = |line: &str, start: &str| {
        assert!(line.starts_with(start) && line.contains(" since 20"), "{line}");
    };
    check(&lines[0], "mower-1 over mqtt from 127.0.0.1:");
    check(&lines[1], "operator@basicorg.example over http from 127.0.0.1:");
    assert_eq!(lines[2], "2 sessions");
    assert_eq!(connected(&server).len(), 1, "the operator has logged out");
    server.stop().await;
}

#[tokio::test]
async fn the_device_publishes_and_carries_methods_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path()).await.expect("a server");
    let mut device = connect(&url(&server, "mqtt", MOWER).parse().expect("a URL")).await;
    let mut operator = connect(&url(&server, "http", OPERATOR).parse().expect("a URL")).await;
    let asked = async {
        let exec = r#"{"thingKey":"mower-1","method":"mow","params":{"field":3}}"#;
        assert_eq!(call(&mut operator, "method.exec", exec).await["mown"], 3);
        let exec = r#"{"thingKey":"mower-1","method":"fly"}"#;
        let refused = operator.call("method.exec", Some(exec)).await.expect("a reply");
        assert_eq!((refused.success(), refused.error_codes()), (false, &[1][..]));
        let current = r#"{"thingKey":"mower-1","key":"battery"}"#;
        assert_eq!(call(&mut operator, "property.current", current).await["value"], 87);
    };
    tokio::select! {
        ended = device_example::run(&mut device) => panic!("the device ended: {ended:?}"),
        () = asked => {}
    }
    // Without its server, a device has nothing to wait for.
    server.stop().await;
    let ended = timeout(SOON, device_example::run(&mut device)).await.expect("it ends");
    assert!(ended.is_err());
}
