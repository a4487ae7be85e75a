//! The console's page for everybody: own sessions, second factor, password, API tokens, invitations.

use base::TimeSource;
use serde_json::json;
use support::browser::{Browser, input, part};
use support::http::{Answer, log_in};
use support::{Endpoints, Hands, TestServer, call, connect, totp};

const VIEWER: &str = "viewer@basicorg.example";
const PASSWORD: &str = "demo-viewer-password";
const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");

/// A page with a secret on it is kept nowhere, and its length tells nothing.
fn check_secret_page(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"), "{}", answer.head);
    assert_eq!(answer.header("content-encoding"), None, "{}", answer.head);
}

/// Where an answer leads.
fn leads_to(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.header("location").expect("a location")
}

async fn still_logs_in(server: &Endpoints, password: &str) -> bool {
    let mut browser = Browser::new(server);
    browser.log_in(&[("username", VIEWER), ("password", password)]).await.status == 303
}

#[tokio::test]
async fn everybody_sees_own_sessions_and_ends_them() {
    let server = TestServer::start();
    let browser = Browser::login(&server, VIEWER, PASSWORD).await;
    let page = browser.page("/me").await;
    assert_eq!(page.matches("this one").count(), 1, "{page}");
    assert!(page.contains("Browser/1") && page.contains("1 session"), "{page}");
    // What has no secret is compressed.
    let zipped = browser.taking_gzip().get("/me").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"), "{}", zipped.head);
    assert!(!page.contains("End all others"), "{page}");
    // Somebody else's is none of them.
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let others = Browser::login(&server, VIEWER, PASSWORD).await;
    let device = connect(&server.url("mqtt", VIEWER, PASSWORD)).await;
    let page = browser.page("/me").await;
    assert!(page.contains("3 sessions") && page.contains("mqtt"), "{page}");
    let mut viewer = connect(&server.url("http", VIEWER, PASSWORD)).await;
    let mine = call(&mut viewer, "session.mine", "").await;
    let rows = mine["result"].as_array().expect("a list");
    let by_mqtt =
        rows.iter().find(|row| row["connInfo"]["protocol"] == "mqtt").expect("it is there");
    let reference = by_mqtt["ref"].as_str().expect("a ref");
    let asked = browser.page(&format!("/me/end?ref={reference}")).await;
    assert!(asked.contains("End this session?") && asked.contains("mqtt"), "{asked}");
    // Nobody ends it by an address, nor by a form of another session.
    let forged = others.with_csrf(browser.csrf()).post("/me/end", &[("ref", reference)]).await;
    assert_eq!(forged.status, 403, "{forged:?}");
    assert!(browser.page("/me").await.contains("mqtt"));
    let ended = browser.post("/me/end", &[("ref", reference)]).await;
    assert_eq!(leads_to(&ended), "/me?done=ended");
    drop(device);
    let page = browser.page("/me?done=ended").await;
    assert!(page.contains("The session has ended.") && !page.contains("mqtt"), "{page}");
    // All others, of which the page tells the number first.
    let asked = browser.page("/me/end?others=1").await;
    assert!(asked.contains("End your 2 other sessions?"), "{asked}");
    let ended = browser.post("/me/end", &[("others", "1")]).await;
    assert_eq!(leads_to(&ended), "/me?done=others");
    assert!(leads_to(&others.get("/me").await).starts_with("/login"));
    assert!(browser.page("/me").await.contains("1 session"));
    assert!(browser.page("/me/end?others=1").await.contains("There is no other session"));
    operator.page("/me").await;
    // One's own is a logout.
    let own = browser.reference().await;
    assert_eq!(leads_to(&browser.post("/me/end", &[("ref", &own)]).await), "/login");
    assert!(leads_to(&browser.get("/me").await).starts_with("/login"));
}

#[tokio::test]
async fn own_sessions_are_live_and_nobody_elses() {
    let server = TestServer::start();
    let browser = Browser::login(&server, VIEWER, PASSWORD).await;
    let page = browser.page("/me?done=ended").await;
    assert!(page.contains(r#"data-view="/me?""#), "{page}");
    let mut own = browser.watch("/me?").await;
    let first = own.until("\"order\":").await;
    assert!(first.contains("this one") && first.contains("1 session"), "{first}");
    // Same rights, another session: what is this one's is not that one's.
    let other = Browser::login(&server, VIEWER, PASSWORD).await;
    let mut others = other.watch("/me?").await;
    let both = others.until("\"2 sessions\"").await;
    let news = own.until("\"2 sessions\"").await;
    assert!(!news.contains("this one"), "{news}");
    assert_eq!(both.matches("this one").count(), 1, "{both}");
    other.post("/logout", &[]).await;
    others.until("event: ended").await;
    own.until("\"1 session\"").await;
}

#[tokio::test]
async fn who_is_out_loses_the_page_at_once() {
    let server = TestServer::start();
    let browser = Browser::login(&server, VIEWER, PASSWORD).await;
    browser.page("/me").await;
    let mut operator = server.operator("http").await;
    let ban = json!({ "emailAddress": VIEWER, "disabled": true, "reason": "left" }).to_string();
    call(&mut operator, "user.update", &ban).await;
    assert!(leads_to(&browser.get("/me").await).starts_with("/login"));
    let posted = browser.post("/me/tokens", &[("name", "x")]).await;
    assert!(leads_to(&posted).starts_with("/login"), "{posted:?}");
    let nobody = Browser::new(&server);
    assert_eq!(leads_to(&nobody.get("/me/tokens/1").await), "/login?next=%2Fme%2Ftokens%2F1");
}

#[tokio::test]
async fn the_second_factor_is_set_up_and_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut browser = Browser::login(&server, VIEWER, PASSWORD).await;
    let other = Browser::login(&server, VIEWER, PASSWORD).await;
    assert!(browser.page("/me").await.contains("Set it up"));
    let wrong = browser.post("/me/factor", &[("password", "wrong-password")]).await;
    assert!(wrong.status == 401 || wrong.status == 403, "{wrong:?}");
    assert!(wrong.text().contains("not the user's password"), "{wrong:?}");
    let shown = browser.taking_gzip().post("/me/factor", &[("password", PASSWORD)]).await;
    check_secret_page(&shown);
    let text = shown.text();
    let (_, link) = text.split_once("secret=").expect("a link for the app");
    let secret = link.split('&').next().expect("a secret");
    assert_eq!(text.matches(secret).count(), 1, "{text}");
    assert!(text.contains("<svg class=\"qr\""), "{text}");
    let typed = part(text, "<pre class=\"secret\">", "</pre>").expect("the secret as a text");
    assert_eq!(typed.replace(' ', ""), secret);
    // It counts from its first code on.
    let code = totp::code(secret, hands.wall_ms());
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let refused = browser.post("/me/factor/confirm", &[("code", wrong)]).await;
    assert!(refused.text().contains("not what the authenticator shows"), "{refused:?}");
    assert!(!refused.text().contains(secret), "{refused:?}");
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let confirmed = browser.taking_gzip().post("/me/factor/confirm", &[("code", &spaced)]).await;
    check_secret_page(&confirmed);
    let codes: Vec<_> = confirmed.text().split("<code>").skip(1).collect();
    assert_eq!(codes.len(), 10, "{confirmed:?}");
    let recovery = codes[0].split('<').next().expect("a code").to_owned();
    let page = browser.page("/me").await;
    assert!(page.contains("Recovery codes left: 10.") && !page.contains(&recovery), "{page}");
    assert!(!page.contains(secret), "{page}");
    assert!(leads_to(&other.get("/me").await).starts_with("/login"));
    // The login asks for it.
    let mut second = Browser::new(&server);
    let asked = second.log_in(&[("username", VIEWER), ("password", PASSWORD)]).await;
    assert!(asked.text().contains("Code of your second factor"), "{asked:?}");
    let step = [("username", VIEWER), ("step", "code"), ("password", recovery.as_str())];
    assert_eq!(leads_to(&second.log_in(&step).await), "/");
    assert!(second.page("/me").await.contains("Recovery codes left: 9."));
    // Gone by a proof only.
    let none = browser.post("/me/factor/remove", &[]).await;
    assert_ne!(none.status, 303, "{none:?}");
    let gone = browser.post("/me/factor/remove", &[("password", PASSWORD)]).await;
    assert_eq!(leads_to(&gone), "/me?done=factor-removed");
    assert!(still_logs_in(&server, PASSWORD).await);
    browser = Browser::login(&server, VIEWER, PASSWORD).await;
    assert!(browser.page("/me").await.contains("Set it up"));
}

#[tokio::test]
async fn who_has_to_have_a_factor_can_set_it_up_and_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    let required = json!({ "emailAddress": OPERATOR.0, "mfaRequired": true }).to_string();
    call(&mut operator, "user.update", &required).await;
    let browser = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    assert_eq!(leads_to(&browser.get("/").await), "/me");
    let page = browser.page("/me").await;
    assert!(page.contains("requires a second factor") && page.contains("/me/factor"), "{page}");
    for left_out in ["/me/password", "/me/tokens", "href=\"/o/basic-org/\"", "/me/end"] {
        assert!(!page.contains(left_out), "{left_out}: {page}");
    }
    let refused = browser.post("/me/tokens", &[("name", "x")]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let shown = browser.post("/me/factor", &[("password", OPERATOR.1)]).await;
    let secret = part(shown.text(), "secret=", "&").expect("a secret").to_owned();
    let code = totp::code(&secret, hands.wall_ms());
    check_secret_page(&browser.post("/me/factor/confirm", &[("code", &code)]).await);
    let page = browser.page("/me").await;
    assert!(
        page.contains("/me/tokens") && page.contains("Your organisation requires it."),
        "{page}"
    );
}

#[tokio::test]
async fn api_tokens_are_shown_once_and_give_no_more_than_chosen() {
    let server = TestServer::start();
    let browser = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let name = "<b>night & day";
    let fields =
        [("name", name), ("narrow", "1"), ("perms", "thing.list"), ("perms", "session.list")];
    let made = browser.taking_gzip().post("/me/tokens", &fields).await;
    check_secret_page(&made);
    let token = part(made.text(), "<pre class=\"secret\">", "</pre>").expect("a token").to_owned();
    assert_eq!(made.text().matches(&token).count(), 1);
    let page = browser.page("/me").await;
    assert!(page.contains("&lt;b&gt;night &amp; day") && !page.contains(&token), "{page}");
    assert!(page.contains("2 permissions") && page.contains("never"), "{page}");
    // The same name again.
    let again = browser.post("/me/tokens", &fields).await;
    assert!(again.text().contains("exists already"), "{again:?}");
    assert!(again.text().contains("value=\"&lt;b&gt;night &amp; day\""), "{again:?}");
    let past = browser.post("/me/tokens", &[("name", "p"), ("expires", "2001-01-01T00:00")]).await;
    assert!(past.text().contains("a time that is to come"), "{past:?}");
    // A browser that logs in with it can make no other, and sees no second factor.
    let program = Browser::login(&server, OPERATOR.0, &token).await;
    let own = program.page("/me").await;
    assert!(own.contains("by the token") && !own.contains("/me/tokens"), "{own}");
    assert!(!own.contains("/me/factor"), "{own}");
    let refused = program.post("/me/tokens", &[("name", "x")]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    // Disabled, enabled, renamed and deleted.
    let path = part(&page, "href=\"/me/tokens/", "\"").expect("a page").to_owned();
    let path = format!("/me/tokens/{path}");
    let changed = format!("{path}?done=token");
    let one = browser.page(&path).await;
    assert!(one.contains("127.0.0.1") && one.contains("thing"), "{one}");
    let disabled = browser.post(&path, &[("what", "disable"), ("reason", "<i>lost")]).await;
    assert_eq!(leads_to(&disabled), changed);
    assert!(leads_to(&program.get("/me").await).starts_with("/login"));
    let one = browser.page(&path).await;
    assert!(one.contains("&lt;i&gt;lost") && one.contains("disabled"), "{one}");
    assert_eq!(leads_to(&browser.post(&path, &[("what", "enable")]).await), changed);
    Browser::login(&server, OPERATOR.0, &token).await;
    let terms = [("what", "terms"), ("name", "other"), ("expires", "2099-01-01T10:30")];
    assert_eq!(leads_to(&browser.post(&path, &terms).await), changed);
    let one = browser.page(&path).await;
    assert_eq!(input(&one, "expires"), Some("2099-01-01T10:30"), "{one}");
    assert_eq!(input(&one, "name"), Some("other"), "{one}");
    assert!(browser.page(&format!("{path}/delete")).await.contains("Delete the token"));
    let deleted = browser.post(&format!("{path}/delete"), &[]).await;
    assert_eq!(leads_to(&deleted), "/me?done=token-deleted");
    assert_eq!(browser.get(&path).await.status, 404);
    assert!(browser.page("/me").await.contains("No tokens"));
}

#[tokio::test]
async fn a_new_password_needs_the_old_one() {
    let server = TestServer::start();
    let browser = Browser::login(&server, VIEWER, PASSWORD).await;
    let id = log_in(&server, VIEWER, PASSWORD).await;
    let form = |old, new, again| [("old", old), ("new", new), ("again", again)];
    let new = "another-password & more";
    let check = async |fields: [(&str, &str); 3], expected: &str| {
        let refused = browser.post("/me/password", &fields).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        assert!(refused.text().contains(expected), "{refused:?}");
        assert!(!refused.text().contains("another"), "{refused:?}");
    };
    check(form(PASSWORD, new, "another-passwort"), "not typed the same twice").await;
    check(form("wrong-password", new, new), "oldPassword").await;
    check(form(PASSWORD, "short", "short"), "8 to 1024 bytes long").await;
    let changed = browser.post("/me/password", &form(PASSWORD, new, new)).await;
    assert_eq!(leads_to(&changed), "/me?done=password");
    assert!(browser.page("/me").await.contains("1 session"), "{id}");
    assert!(still_logs_in(&server, new).await && !still_logs_in(&server, PASSWORD).await);
}

#[tokio::test]
async fn invitations_are_accepted_and_declined() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let created =
        call(&mut admin, "org.create", r#"{"key":"Other","name":"<em>Other & more"}"#).await;
    let org = created["id"].as_str().expect("an id").to_owned();
    let chief = json!({ "emailAddress": "chief@other.example", "password": "chief-password",
        "defaultOrgId": org });
    call(&mut admin, "user.create", &chief.to_string()).await;
    let member = json!({ "emailAddress": "chief@other.example", "orgId": org, "isOrgAdmin": true });
    call(&mut admin, "user.org.add", &member.to_string()).await;
    let mut chief = connect(&server.url("http", "chief@other.example", "chief-password")).await;
    let invite = json!({ "emailAddress": VIEWER }).to_string();
    let browser = Browser::login(&server, VIEWER, PASSWORD).await;
    assert!(!browser.page("/me").await.contains("Invitations"));
    for (answer, done) in [("decline", "/me?done=declined"), ("accept", "/me?done=accepted")] {
        call(&mut chief, "user.org.add", &invite).await;
        let page = browser.page("/me").await;
        assert!(page.contains("&lt;em&gt;Other &amp; more"), "{page}");
        assert!(page.contains("chief@other.example"), "{page}");
        let answered = browser.post("/me/invites", &[("orgId", &org), ("answer", answer)]).await;
        assert_eq!(leads_to(&answered), done);
        assert!(!browser.page("/me").await.contains("Invitations"));
    }
    let page = browser.page("/me").await;
    assert!(page.contains("href=\"/o/other/\""), "{page}");
    let gone = browser.post("/me/invites", &[("orgId", &org), ("answer", "accept")]).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}
