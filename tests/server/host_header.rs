//! `Host`: one in every HTTP/1.1 request (RFC 9112, 3.2).

use support::TestServer;
use support::http::exchange;

#[tokio::test]
async fn a_request_has_one_host() {
    let server = TestServer::start();
    let check = async |request: &str, hosts: &[&str], expected: &str| {
        let lines: String = hosts.iter().map(|host| format!("{host}\r\n")).collect();
        let text =
            format!("{request}\r\n{lines}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}");
        let answer = exchange(&server, text.as_bytes()).await;
        assert!(answer[9..].starts_with(expected), "{text}\n{answer}");
        if expected == "400" {
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
            assert!(answer.contains(r#""code":400,"message":""#), "{answer}");
        }
    };
    for request in ["POST /api HTTP/1.1", "GET /healthz HTTP/1.1", "POST /json-rpc/12.3 HTTP/1.1"] {
        check(request, &[], "400").await;
        for wrong in ["Host: a b", "Host: a, b", "Host: http://a", "Host: me@a", "Host: a:b"] {
            check(request, &[wrong], "400").await;
        }
    }
    for version in ["1.0", "1.1"] {
        let request = format!("POST /api HTTP/{version}");
        check(&request, &["Host: a", "Host: a"], "400").await;
        check(&request, &["Host: a", "hOST:b"], "400").await;
        for right in ["Host:x", "Host: tr50.example:80", "Host: [::1]:8080", "Host:", "host: a_b"] {
            check(&request, &[right], "200").await;
        }
    }
    check("POST /api HTTP/1.0", &[], "200").await;
    // libtr50's tunnel is answered by a bare 200, and speaks MQTT then.
    for hosts in ["", "host: x\r\n"] {
        let tunnel = format!("GET /mqtt HTTP/1.1\r\n{hosts}\r\n\x10\x02\0\0");
        let answer = exchange(&server, tunnel.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n\r\n"), "{answer}");
    }
    let two = exchange(&server, b"GET /mqtt HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").await;
    assert!(two.starts_with("HTTP/1.1 400 "), "{two}");
}
