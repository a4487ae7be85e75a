//! The commands, over whichever transport.

use crate::harness::{TestServer, call};

#[tokio::test]
async fn a_session_is_listed_where_it_is() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut operator = server.operator("http").await;
    let listed = call(&mut operator, "session.list", "").await;
    assert_eq!(listed["count"], 2);
    assert_eq!(listed["result"][1]["thingKey"], "mower-1");
    call(&mut thing, "diag.ping", "").await;
}
