use super::test_server::{Speech, TestServer, tls};
use super::*;

async fn connect(url: &str) -> Result<Client, ClientError> {
    Client::connect(&url.parse().expect(url)).await
}

async fn check_commands(mut client: Client) {
    let reply = client.call("diag.ping", None).await.expect("an answer");
    assert_eq!(reply.as_json(), r#"{"success":true,"params":{"a":"b c"}}"#);
    let reply = client.call("diag.fail", Some(r#"{"x":[1, 2]}"#)).await.expect("an answer");
    assert!(!reply.success());
    assert_eq!(
        (reply.error_codes(), reply.error_messages()),
        (&[-1][..], &["as you wish".into()][..])
    );
    let error = reply.succeeded().expect_err("a failure");
    assert_eq!(error.to_string(), "the command failed: as you wish [-1]");
    let error = client.call("diag.ping", Some("{")).await.expect_err("not JSON");
    assert!(matches!(error, ClientError::BadParams(_)), "{error}");
    client.close().await;
}

#[tokio::test]
async fn commands_are_answered_over_every_version_of_mqtt() {
    let server = TestServer::start(Speech::Mqtt, usize::MAX).await;
    for version in ["3.1", "3.1.1", "5"] {
        for qos1 in [false, true] {
            let url = server.url("mqtt", &format!("version={version}"));
            let url: Url = url.parse().expect("a URL");
            let target = Target::resolve(&url).await.expect("an address");
            let options = Options { qos1, ..Options::default() };
            let client = Client::connect_to(&target, &url, &options).await;
            check_commands(client.expect(version)).await;
        }
    }
}

#[tokio::test]
async fn commands_are_answered_over_tcp_http_and_web_socket() {
    for (speech, scheme) in
        [(Speech::Tcp, "tcp"), (Speech::Http, "http"), (Speech::MqttOverWebSocket, "ws")]
    {
        let server = TestServer::start(speech, usize::MAX).await;
        check_commands(connect(&server.url(scheme, "")).await.expect(scheme)).await;
    }
}

#[tokio::test]
async fn tls_wants_to_know_whom_to_trust() {
    let (pem, speech) = tls();
    let server = TestServer::start(speech, usize::MAX).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).expect("written");
    let (other_pem, _) = tls();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, other_pem).expect("written");

    let url = server.url("tcps", &format!("ca={}", file.display()));
    check_commands(connect(&url).await.expect("trusted")).await;
    let client = connect(&server.url("tcps", "insecure=true")).await;
    check_commands(client.expect("not checked")).await;

    let refused = async |options: String| match connect(&server.url("tcps", &options)).await {
        Ok(_) => panic!("connected with {options}"),
        Err(error) => error.to_string(),
    };
    assert!(refused(String::new()).await.contains("ca=FILE"));
    assert!(refused(format!("ca={}", other.display())).await.contains("TLS handshake"));
    assert!(refused("ca=/nowhere".to_owned()).await.contains("'/nowhere'"));
}

#[tokio::test]
async fn a_refused_login_says_why() {
    let check = async |speech, scheme: &str, text: &str| {
        let server = TestServer::start(speech, usize::MAX).await;
        let url = format!("{scheme}://dev:wrong@{}", server.address);
        match connect(&url).await {
            Ok(_) => panic!("{scheme} let a wrong token in"),
            Err(error) => assert!(error.to_string().contains(text), "{scheme}: {error}"),
        }
    };
    check(Speech::Mqtt, "mqtt", "refused the login: not authorised (code 5)").await;
    check(Speech::Tcp, "tcp", "refused the login: bad token [-90001]").await;
    check(Speech::Http, "http", "refused the login: bad token [-90001]").await;
}

#[tokio::test]
async fn without_a_session_the_reply_is_the_failure_at_the_root() {
    for (speech, scheme) in [(Speech::Tcp, "tcp"), (Speech::Http, "http")] {
        let server = TestServer::start(speech, usize::MAX).await;
        let mut client = connect(&format!("{scheme}://{}", server.address)).await.expect(scheme);
        let reply = client.call("diag.ping", None).await.expect("an answer");
        assert_eq!((reply.success(), reply.error_codes()), (false, &[-90000][..]));
    }
}

#[tokio::test]
async fn the_end_of_a_connection_is_noticed() {
    for (speech, scheme) in [(Speech::Mqtt, "mqtt"), (Speech::Tcp, "tcp"), (Speech::Http, "http")] {
        let server = TestServer::start(speech, 1).await;
        let mut client = connect(&server.url(scheme, "")).await.expect(scheme);
        client.call("diag.ping", None).await.expect("one answer");
        client.closed().await;
        client.closed().await;
        assert!(client.call("diag.ping", None).await.is_err(), "{scheme}");
    }
}

#[tokio::test]
async fn a_notice_of_mail_that_came_during_a_command_counts_once() {
    let server = TestServer::start(Speech::Mqtt, 2).await;
    let mut client = connect(&server.url("mqtt", "")).await.expect("a login");
    client.call("diag.ping", None).await.expect("an answer, behind a notice");
    client.mail_waits().await.expect("the notice");
    client.call("diag.ping", None).await.expect("an answer, behind a notice");
    client.mail_waits().await.expect("the notice");
    let error = client.mail_waits().await.expect_err("the server has closed, without a notice");
    assert!(matches!(error, ClientError::Closed), "{error}");
}

#[tokio::test]
async fn silence_is_not_waited_for_longer_than_allowed() {
    let server = TestServer::start(Speech::Tcp, usize::MAX).await;
    let url: Url = server.url("tcp", "").parse().expect("a URL");
    let target = Target::resolve(&url).await.expect("an address");
    let options = Options { timeout: Duration::from_millis(50), ..Options::default() };
    let mut client = Client::connect_to(&target, &url, &options).await.expect("a login");
    let error = client.call("diag.silence", None).await.expect_err("nothing came");
    assert_eq!(error.to_string(), "no answer within 50 ms");
}

#[test]
fn requests_are_compact() {
    let check = |command, params, expected: &str| {
        assert_eq!(request_text(command, params).expect("JSON"), expected);
    };
    check("diag.ping", None, r#"{"cmd":{"command":"diag.ping"}}"#);
    let expected = r#"{"cmd":{"command":"a\"b","params":{"k":" v"}}}"#;
    check("a\"b", Some("{ \"k\":\n\" v\" }"), expected);
}

#[test]
fn logins_are_as_the_protocol_has_them() {
    let check = |url: &str, params: Option<&str>| {
        let expected = params.map(|params| {
            format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#)
        });
        assert_eq!(login_text(&url.parse().expect(url)), expected, "{url}");
    };
    check("tcp://h", None);
    check("tcp://a%40b.c:p%22w@h", Some(r#"{"password":"p\"w","username":"a@b.c"}"#));
    check(
        "http://dev:tok@h?app_id=app",
        Some(r#"{"appId":"app","appToken":"tok","thingKey":"dev"}"#),
    );
}
