//! What pages of other sites, other users of the browser and other hosts of the domain try at the
//! console: nothing is done in somebody's name, and nobody is led elsewhere.

use base::TimeSource;
use serde_json::{Value, json};
use support::browser::{Browser, part};
use support::http::{Answer, send};
use support::totp::code;
use support::{TestServer, call};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");
const SESSIONS: &str = "/o/basic-org/sessions";

async fn browser<'a>(server: &'a TestServer, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

/// A request with these header lines.
async fn ask(server: &TestServer, first: &str, lines: &[&str], body: &str) -> Answer {
    let lines: String = lines.iter().map(|line| format!("\r\n{line}")).collect();
    send(server, &format!("{first} HTTP/1.1{lines}"), body.as_bytes()).await
}

fn login_form((name, password): (&str, &str)) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("username", name).append_pair("password", password).finish()
}

/// Where an answer leads.
fn leads_to(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.header("location").expect("a location")
}

/// Who shows this cookie; none: the login is shown.
async fn who(server: &TestServer, lines: &[&str]) -> Option<String> {
    let answer = ask(server, "GET /me", lines, "").await;
    let name = part(answer.text(), "You are <bdi>", "</bdi>");
    assert_eq!(name.is_none(), answer.status == 303, "{answer:?}");
    name.map(str::to_owned)
}

#[tokio::test]
async fn nobody_is_logged_in_by_a_page_of_another_site() {
    let server = TestServer::start();
    let log_in = async |lines: &[&str]| {
        let answer = ask(&server, "POST /login", lines, &login_form(OPERATOR)).await;
        assert_eq!(answer.header("set-cookie").is_some(), answer.status == 303, "{answer:?}");
        answer.status
    };
    for lines in [
        &[][..],
        &["Origin: http://evil.example"],
        &["Origin: null"],
        &["Origin: http://x.evil.example"],
        &["Origin: http://x", "Origin: http://evil.example"],
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: none"],
        // The same host over plain HTTP is another site, and a browser says so.
        &["Sec-Fetch-Site: cross-site", "Origin: http://x"],
        &["Sec-Fetch-Site: same-site", "Origin: http://x"],
        &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site", "Origin: http://x"],
        &["Referer: http://x/login"],
    ] {
        assert_eq!(log_in(lines).await, 403, "{lines:?}");
    }
    for lines in [
        &["Origin: http://x"][..],
        &["Sec-Fetch-Site: same-origin"],
        &["Sec-Fetch-Site: same-origin", "Origin: http://x"],
        // A page that is sent again when the browser is started.
        &["Sec-Fetch-Site: none", "Origin: http://x"],
        // A proxy that has its own name for this server: the browser knows better.
        &["Sec-Fetch-Site: same-origin", "Origin: https://console.example"],
    ] {
        assert_eq!(log_in(lines).await, 303, "{lines:?}");
    }
}

#[tokio::test]
async fn a_login_begins_a_session_of_its_own_and_ends_the_one_before() {
    let server = TestServer::start();
    let viewer = browser(&server, VIEWER).await;
    // Somebody has put a session of his own into the browser.
    let planted = format!("Cookie: tr50d={}", viewer.session_id());
    let lines = [planted.as_str(), "Origin: http://x"];
    let answer = ask(&server, "POST /login", &lines, &login_form(OPERATOR)).await;
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    let cookie = cookie.split(';').next().expect("a pair");
    assert!(!planted.ends_with(cookie), "{cookie}");
    let own = format!("Cookie: {cookie}");
    assert_eq!(who(&server, &[&own]).await.as_deref(), Some(OPERATOR.0));
    assert_eq!(who(&server, &[&planted]).await, None, "nobody forgets a session in a browser");
    // A wrong password ends nothing.
    let lines = [own.as_str(), "Origin: http://x"];
    let answer = ask(&server, "POST /login", &lines, &login_form((VIEWER.0, "wrong"))).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(who(&server, &[&own]).await.as_deref(), Some(OPERATOR.0));
}

#[tokio::test]
async fn the_session_is_the_one_in_the_cookie_and_nowhere_else() {
    let server = TestServer::start();
    let (operator, viewer) = (browser(&server, OPERATOR).await, browser(&server, VIEWER).await);
    let (of_operator, of_viewer) = (operator.session_id(), viewer.session_id());
    let cookie = format!("Cookie: tr50d={of_operator}");
    let bearer = format!("Authorization: Bearer {of_viewer}");
    let header = format!("sessionId: {of_viewer}");
    let check = async |lines: &[&str], expected: Option<&str>| {
        assert_eq!(who(&server, lines).await.as_deref(), expected, "{lines:?}");
    };
    check(&[&cookie], Some(OPERATOR.0)).await;
    check(&[&cookie, &bearer], Some(OPERATOR.0)).await;
    check(&[&cookie, &header], Some(OPERATOR.0)).await;
    check(&[&bearer], None).await;
    check(&[&header], None).await;
    let another = format!("Cookie: tr50d={of_viewer}");
    check(&[&cookie, &another], None).await;
    let two = format!("Cookie: tr50d={of_viewer}; tr50d={of_operator}");
    check(&[&two], None).await;
    // A neighbour's cookie may be anything, also no ASCII.
    let neighbour = format!("Cookie: name=Zoë; a b; =; tr50d={of_operator}; tr50d2=x");
    check(&[&neighbour], Some(OPERATOR.0)).await;
    for name in ["__Host-tr50d", "TR50D", "tr50d ", "x-tr50d"] {
        let wrong = format!("Cookie: {name}={of_operator}");
        let expected = (name == "tr50d ").then_some(OPERATOR.0);
        check(&[&wrong], expected).await;
    }
    // Who is no trusted proxy says nothing of encryption, nor of anything else.
    let proxied = ["X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", &cookie];
    check(&proxied, Some(OPERATOR.0)).await;
    let page = ask(&server, "GET /login", &proxied[..2], "").await;
    assert!(page.text().contains("not encrypted") && !page.text().contains("evil"), "{page:?}");
    // Elsewhere it is the other way round.
    let body = r#"{"1":{"command":"session.info"}}"#;
    for lines in [&[&cookie[..], &header][..], &[&cookie, &bearer]] {
        let lines = [lines, &["Origin: http://x"]].concat();
        let info = ask(&server, "POST /api", &lines, body).await.json();
        assert_eq!(info["1"]["params"]["hasOrgAdmin"], false, "{info}");
    }
    let refused = ask(&server, "POST /api", &[&cookie, "Origin: http://x"], body).await;
    assert!(!refused.text().contains("params"), "{refused:?}");
    for lines in [[&bearer[..]], [&header]] {
        let views = format!("GET /events?view={SESSIONS}");
        assert_eq!(ask(&server, &views, &lines, "").await.status, 401, "{lines:?}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_cookie_is_that_of_an_encrypted_connection() {
    let server = TestServer::with(&[("TR50D_PROXY__TRUSTED", "127.0.0.0/8")]);
    let over_tls = "X-Forwarded-Proto: https";
    let lines = ["Origin: https://x", over_tls];
    let answer = ask(&server, "POST /login", &lines, &login_form(OPERATOR)).await;
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("__Host-tr50d=") && cookie.ends_with("; Secure"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().expect("a pair"));
    assert_eq!(who(&server, &[&cookie, over_tls]).await.as_deref(), Some(OPERATOR.0));
    assert_eq!(who(&server, &[&cookie]).await, None);
    // Nobody gets in by the name that any host of the domain can set.
    let plain = cookie.replace("__Host-", "");
    assert_eq!(who(&server, &[&plain, over_tls]).await, None);
}

#[tokio::test]
async fn a_form_is_good_in_its_own_session_only() {
    let server = TestServer::start();
    let first = browser(&server, OPERATOR).await;
    let second = browser(&server, OPERATOR).await;
    assert_ne!(first.csrf(), second.csrf());
    let forms = ["/logout", "/me/end", "/me/tokens", "/o/basic-org/sessions/end"];
    for path in forms {
        let answer = first.with_csrf(second.csrf()).post(path, &[("others", "1")]).await;
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    // The token of a session that is over is no good in the next one of the same user.
    let before = first.csrf().to_owned();
    first.post("/logout", &[]).await;
    let next = browser(&server, OPERATOR).await;
    assert_eq!(next.with_csrf(&before).post("/logout", &[]).await.status, 403);
    // Two pages show two masks, and both are good; half of one is not.
    let pages = [next.page("/me").await, next.page("/me").await];
    let tokens = pages.each_ref().map(|page| part(page, "name=\"csrf\" value=\"", "\""));
    assert_ne!(tokens[0], tokens[1]);
    let token = tokens[1].expect("a token");
    for wrong in [&token[..43], &token[..token.len() - 2], &format!("{token}AA"), "====", "\0"] {
        let answer = next.with_csrf(wrong).post("/me/tokens", &[("name", "forged")]).await;
        assert_eq!(answer.status, 403, "{wrong}: {answer:?}");
    }
    for path in ["/me", "/o", "/search", "/"] {
        assert!(matches!(next.post(path, &[]).await.status, 404 | 405), "{path}");
    }
    assert!(!next.page("/me").await.contains("forged"));
    for token in tokens.into_iter().flatten() {
        let answer = next.with_csrf(token).post("/me/tokens", &[("name", &token[..9])]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_login_leads_nowhere_else_and_adds_no_header() {
    let server = TestServer::start();
    for (next, expected) in [
        ("//evil.example", "/"),
        (" //evil.example", "/"),
        ("\u{a0}//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("/x\r\nX-Evil: 1", "/"),
        ("/x\u{0}", "/"),
        ("evil.example", "/"),
        ("https:evil.example", "/"),
        ("javascript:alert(1)//", "/"),
        ("data:text/html,x", "/"),
        ("?x", "/"),
        ("", "/"),
        ("/%0d%0aX-Evil:%201", "/%0d%0aX-Evil:%201"),
        ("/o/basic-org/things?query=%E4", "/o/basic-org/things?query=%E4"),
    ] {
        let login = [("username", OPERATOR.0), ("password", OPERATOR.1), ("next", next)];
        let answer = Browser::new(&server).log_in(&login).await;
        assert_eq!(leads_to(&answer), expected, "{next:?}");
        assert_eq!(answer.header("x-evil"), None, "{next:?}");
        // A link to the login keeps no other.
        let query: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let page = Browser::new(&server).page(&format!("/login?next={query}")).await;
        let kept = part(&page, "name=\"next\" value=\"", "\"");
        assert_eq!(kept.is_some(), expected != "/", "{next:?}: {page}");
    }
    // What is no ASCII is written as addresses have it.
    let login = [("username", OPERATOR.0), ("password", OPERATOR.1), ("next", "/o/ü?q=ä b")];
    let answer = Browser::new(&server).log_in(&login).await;
    assert_eq!(leads_to(&answer), "/o/%C3%BC?q=%C3%A4%20b");
    // What nobody has asked for in so many words leads nowhere either.
    let nobody = Browser::new(&server);
    for path in ["/o/basic-org/%0d%0aX-Evil:1", "/o/x/?next=//evil.example", "/me?next=%0a"] {
        let answer = nobody.get(path).await;
        assert!(leads_to(&answer).starts_with("/login?next=%2F"), "{path}: {answer:?}");
        assert_eq!(answer.header("x-evil"), None, "{path}");
    }
    let operator = browser(&server, OPERATOR).await;
    for query in ["//evil", "\r\nX-Evil: 1", "x\"><img>", "#", "a=ü"] {
        let form = [("name", "view"), ("query", query)];
        let kept = operator.post("/o/basic-org/sessions/views", &form).await;
        let leads = leads_to(&kept);
        assert!(leads.starts_with("/o/basic-org/sessions?") || leads == "/", "{kept:?}");
        assert_eq!(kept.header("x-evil"), None, "{query:?}");
    }
}

#[tokio::test]
async fn guesses_at_the_login_page_are_counted_and_tell_nothing() {
    let server = TestServer::start();
    let guess = async |name: &str, password: &str| {
        let mut nobody = Browser::new(&server);
        let answer = nobody.log_in(&[("username", name), ("password", password)]).await;
        assert!(answer.header("set-cookie").is_none(), "{answer:?}");
        let text = answer.text().replace(name, "NAME");
        let said = part(&text, "role=\"alert\"><bdi>", "<").map(str::to_owned);
        (answer.status, said)
    };
    let known = guess(VIEWER.0, "wrong-password").await;
    assert_eq!(known, guess("nobody@basicorg.example", "wrong-password").await);
    for _ in 0..9 {
        assert_eq!(guess(VIEWER.0, "wrong-password").await, known);
    }
    // Now the right one does not help, either.
    let locked = guess(VIEWER.0, VIEWER.1).await;
    assert_ne!(locked, known);
    let (_, said) = &locked;
    assert!(said.as_ref().is_some_and(|said| said.contains("Too many")), "{said:?}");
}

#[tokio::test]
async fn codes_are_not_guessed_at_the_login_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = support::Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let viewer = browser_of(&server, VIEWER).await;
    let shown = viewer.post("/me/factor", &[("password", VIEWER.1)]).await;
    let secret = part(shown.text(), "secret=", "&").expect("a secret").to_owned();
    let now = code(&secret, hands.wall_ms());
    assert_eq!(viewer.post("/me/factor/confirm", &[("code", &now)]).await.status, 200);
    let next = code(&secret, hands.wall_ms() + 30_000);
    let wrong = if next == "000000" { "000001" } else { "000000" };
    let step = async |code: &str| {
        let form = [("username", VIEWER.0), ("step", "code"), ("password", code)];
        Browser::new(&server).log_in(&form).await
    };
    // A code alone, without the password before it, opens nothing.
    assert_eq!(step(&next).await.status, 401);
    let asked =
        Browser::new(&server).log_in(&[("username", VIEWER.0), ("password", VIEWER.1)]).await;
    assert!(asked.text().contains("Code of your second factor"), "{asked:?}");
    assert!(asked.header("set-cookie").is_none(), "{asked:?}");
    for _ in 0..5 {
        assert_eq!(step(wrong).await.status, 401);
    }
    // After five, the right one comes too late.
    let late = step(&next).await;
    assert_ne!(late.status, 303, "{late:?}");
    assert!(late.header("set-cookie").is_none(), "{late:?}");
}

async fn browser_of<'a>(
    server: &'a support::Endpoints,
    (name, password): (&str, &str),
) -> Browser<'a> {
    Browser::login(server, name, password).await
}

#[tokio::test]
async fn forms_that_are_none_change_nothing() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut client = server.operator("tcp").await;
    call(&mut client, "thing.create", &json!({"key": "pump-1"}).to_string()).await;
    let cookie = format!("Cookie: tr50d={}", operator.session_id());
    let files = async || {
        let mut client = server.operator("tcp").await;
        let listed = call(&mut client, "file.list", r#"{"thingKey":"pump-1"}"#).await;
        listed["result"].as_array().expect("a list").clone()
    };
    let token = operator.csrf();
    let field = |name: &str, value: &str| {
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = |name: &str, bytes: &str| {
        format!(
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: text/html\r\n\r\n{bytes}\r\n"
        )
    };
    let send_file = async |body: String, kind: &str| {
        let kind = format!("Content-Type: {kind}");
        let lines = [cookie.as_str(), "Origin: http://x", &kind];
        ask(&server, "POST /o/basic-org/things/pump-1/file", &lines, &body).await.status
    };
    let multipart = "multipart/form-data; boundary=B";
    let right = field("csrf", token);
    for (body, kind) in [
        // The token is a field, neither a file nor what stands behind many others or in another type.
        (file("a.txt", "x") + "--B--\r\n", multipart),
        (
            right.clone().replace("name=\"csrf\"", "name=\"csrf\"; filename=\"f\"") + "--B--",
            multipart,
        ),
        (field("x", "").repeat(40) + &right + &file("a.txt", "x") + "--B--\r\n", multipart),
        (right.clone() + &file("a.txt", "x") + "--B--\r\n", "text/plain"),
        (right.clone() + &file("a.txt", "x") + "--B--\r\n", "multipart/form-data"),
        (right.clone() + &file("a.txt", "x") + "--B--\r\n", "multipart/form-data; boundary=C"),
        (json!({ "csrf": token }).to_string(), "application/json"),
        (String::new(), multipart),
    ] {
        assert_eq!(send_file(body.clone(), kind).await, 403, "{kind}: {body}");
    }
    // With a token, but no whole file, or none of a name that is one.
    for body in [
        right.clone() + "--B--\r\n",
        right.clone() + &file("", "x") + "--B--\r\n",
        right.clone() + &file("a.txt", "cut off").replace("off\r\n", "off"),
        right.clone() + &file("%0D%0AX-Evil: 1", "x") + "--B--\r\n",
    ] {
        assert_eq!(send_file(body.clone(), multipart).await, 400, "{body}");
    }
    assert_eq!(files().await, Vec::<Value>::new());
    // A page that somebody uploads is never shown as one of this server's.
    let page = right + &file("a%22.html", "<script>alert(1)</script>") + "--B--\r\n";
    assert_eq!(send_file(page, multipart).await, 303);
    assert_eq!(files().await[0]["fileName"], "a\".html");
    let path = "/o/basic-org/things/pump-1/file?name=a%22.html";
    let ticket = leads_to(&operator.get(path).await).to_owned();
    let got = ask(&server, &format!("GET {ticket}"), &["Accept: text/html"], "").await;
    assert_eq!(got.status, 200, "{got:?}");
    let disposition = got.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename*=UTF-8''a%22.html"));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
}
