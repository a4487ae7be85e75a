//! The documentation as web pages: for everybody, at every door, and nothing of it from elsewhere.

use support::TestServer;
use support::http::{Answer, send};

async fn get(server: &TestServer, path: &str) -> Answer {
    send(server, &format!("GET {path} HTTP/1.1"), b"").await
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<&str> {
    let links = page.split("href=\"").skip(1);
    links.map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_link_leads_somewhere_on_this_server() {
    let server = TestServer::start();
    let mut waiting = vec!["/docs".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = waiting.pop() {
        let answer = get(&server, &path).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy").expect("a policy").to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        seen.push(path);
        if !answer.header("content-type").expect("a type").starts_with("text/html") {
            continue;
        }
        let page = answer.text();
        for word in ["<script", "=\"http:", "=\"https:", "=\"//", "src=", "style="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("name=\"viewport\""));
        for link in links(page) {
            let path = link.split('#').next().expect("a path").to_owned();
            assert!(path.starts_with('/'), "{link}");
            if !seen.contains(&path) && !waiting.contains(&path) {
                waiting.push(path);
            }
        }
    }
    for path in ["/docs/session.list", "/docs/errors", "/docs/style.css", "/openapi.json"] {
        assert!(seen.iter().any(|seen| seen == path), "{path}");
    }
    let style = get(&server, "/docs/style.css").await;
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
}

#[tokio::test]
async fn pages_are_only_read() {
    let server = TestServer::start();
    let head = send(&server, "HEAD /docs HTTP/1.1", b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for method in ["POST", "PUT", "DELETE"] {
        let refused = send(&server, &format!("{method} /docs HTTP/1.1"), b"x").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    }
    for path in ["/docs/no.such", "/docsx", "/docs/a/b", "/docs/%2e%2e/"] {
        assert_eq!(get(&server, path).await.status, 404, "{path}");
    }
}
