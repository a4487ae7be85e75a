//! The console's screen of access: users, invitations, roles, applications, the trail.

use serde_json::{Value, json};
use support::browser::{Browser, part};
use support::http::Answer;
use support::{Endpoints, TestServer, call, connect, end_reason, reply};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");
const ACCESS: &str = "/o/basic-org/access";

/// A name that would do harm in a page, with a letter that is written from right to left.
const HOSTILE: &str = "<script>alert(1)</script>\u{5d0}\"'&";
const ESCAPED: &str = "&lt;script&gt;alert(1)&lt;/script&gt;\u{5d0}&quot;'&amp;";

async fn operator(server: &Endpoints) -> Browser<'_> {
    Browser::login(server, OPERATOR.0, OPERATOR.1).await
}

/// Where an answer leads.
fn leads_to(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.header("location").expect("a location")
}

/// The path of the page to which the row of this name leads.
fn link(page: &str, name: &str) -> String {
    let before = page.split(&format!("><bdi>{name}</bdi></a>")).next().expect("a text");
    let (_, path) = before.rsplit_once("href=\"").expect(name);
    path.trim_end_matches('"').to_owned()
}

fn secret(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"), "{}", answer.head);
    assert_eq!(answer.header("content-encoding"), None, "{}", answer.head);
    let secret = part(answer.text(), "<pre class=\"secret\">", "</pre>").expect("a secret");
    assert_eq!(answer.text().matches(secret).count(), 1, "{answer:?}");
    secret.to_owned()
}

#[tokio::test]
async fn it_shows_what_one_may_list_and_no_more() {
    let server = TestServer::start();
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    assert!(!viewer.page("/me").await.contains(ACCESS));
    for part in ["", "/users", "/invites", "/roles", "/apps", "/trail", "/roles/new"] {
        let path = format!("{ACCESS}{part}");
        assert_eq!(viewer.get(&path).await.status, 404, "{path}");
        assert_eq!(viewer.post(&path, &[]).await.status, 404, "{path}");
    }
    let browser = operator(&server).await;
    assert!(browser.page("/me").await.contains(ACCESS));
    assert_eq!(leads_to(&browser.get(ACCESS).await), format!("{ACCESS}/users"));
    // A role for a part gives that part.
    let mut chief = server.operator("http").await;
    let role = r#"{"key":"auditor","perms":["role.list","role.find","audit.list"]}"#;
    call(&mut chief, "role.create", role).await;
    let member = json!({ "emailAddress": VIEWER.0, "roles": ["auditor"] }).to_string();
    let added = reply(&mut chief, "user.org.add", &member).await;
    if added["success"] != true {
        call(&mut chief, "user.org.update", &member).await;
    }
    assert_eq!(leads_to(&viewer.get(ACCESS).await), format!("{ACCESS}/roles"));
    let page = viewer.page(&format!("{ACCESS}/roles")).await;
    assert!(page.contains("Trail") && !page.contains("Applications</a>"), "{page}");
    assert!(!page.contains("Make a role"), "{page}");
    assert_eq!(viewer.get(&format!("{ACCESS}/users")).await.status, 403);
    let one = viewer.page(&link(&page, "auditor")).await;
    assert!(one.contains("audit") && !one.contains("Store the role"), "{one}");
    let path = link(&page, "auditor");
    let refused = viewer.post(&path, &[("name", "x")]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    // Another organisation looks like none.
    assert_eq!(browser.get("/o/york-org/access/users").await.status, 403);
    assert_eq!(browser.get("/o/no-such-org/access/users").await.status, 403);
    assert_eq!(browser.get(&format!("{ACCESS}/nothing")).await.status, 404);
}

#[tokio::test]
async fn users_are_found_banned_and_given_roles() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let mut chief = server.operator("http").await;
    let named = json!({ "emailAddress": VIEWER.0, "firstName": HOSTILE }).to_string();
    call(&mut chief, "user.update", &named).await;
    let list = format!("{ACCESS}/users");
    let page = browser.page(&list).await;
    assert!(page.contains(ESCAPED) && !page.contains("<script>alert"), "{page}");
    assert!(page.contains(OPERATOR.0) && page.contains("aria-current=\"page\">Users"), "{page}");
    let found = browser.page(&format!("{list}?query=VIEW")).await;
    assert!(found.contains(&format!("<bdi>{}</bdi>", VIEWER.0)), "{found}");
    assert!(!found.contains(&format!("<bdi>{}</bdi></a></td>", OPERATOR.0)), "{found}");
    assert!(browser.page(&format!("{list}?query=nobody")).await.contains("No users"));
    let one = link(&found, VIEWER.0);
    let page = browser.page(&one).await;
    assert!(page.contains("Roles in") && page.contains(ESCAPED), "{page}");
    // Roles hold at once, also in a live session.
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    assert_eq!(viewer.get(&list).await.status, 404);
    call(&mut chief, "role.create", r#"{"key":"clerk","perms":["user.list","user.find"]}"#).await;
    let given = browser.post(&format!("{one}/roles"), &[("roles", "clerk")]).await;
    assert_eq!(leads_to(&given), format!("{one}?done=roles"));
    let seen = viewer.page(&list).await;
    assert!(!seen.contains("Add or invite"), "{seen}");
    assert!(!viewer.page(&link(&seen, OPERATOR.0)).await.contains("Ban…"));
    assert!(browser.page(&list).await.contains("<bdi>clerk</bdi>"));
    let taken = browser.post(&format!("{one}/roles"), &[]).await;
    assert_eq!(leads_to(&taken), format!("{one}?done=roles"));
    assert_eq!(viewer.get(&list).await.status, 404);
    // Nothing happens by another session's form.
    let forged = browser.with_csrf(viewer.csrf()).post(&format!("{one}/ban"), &[]).await;
    assert_eq!(forged.status, 403, "{forged:?}");
    let asked = browser.page(&format!("{one}/ban")).await;
    assert!(asked.contains("logins are refused until the ban is over"), "{asked}");
    let fields = [("ban", "3600"), ("reason", HOSTILE)];
    let banned = browser.post(&format!("{one}/ban"), &fields).await;
    assert_eq!(leads_to(&banned), format!("{one}?done=banned"));
    assert!(leads_to(&viewer.get("/me").await).starts_with("/login"));
    let page = browser.page(&one).await;
    assert!(page.contains("banned") && page.contains("until") && page.contains("Lift"), "{page}");
    assert!(page.contains(ESCAPED) && !page.contains("<script>alert"), "{page}");
    let lifted = browser.post(&format!("{one}/unban"), &[]).await;
    assert_eq!(leads_to(&lifted), format!("{one}?done=unbanned"));
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    // A new password, which ends the user's sessions.
    let set = browser.post(&format!("{one}/password"), &[("password", "the-new-password")]).await;
    assert_eq!(leads_to(&set), format!("{one}?done=password"));
    assert!(leads_to(&viewer.get("/me").await).starts_with("/login"));
    Browser::login(&server, VIEWER.0, "the-new-password").await;
    // Nobody does that to themselves.
    let own = link(&browser.page(&list).await, OPERATOR.0);
    let page = browser.page(&own).await;
    assert!(page.contains("This is you.") && !page.contains("Ban…"), "{page}");
    let refused = browser.post(&format!("{own}/ban"), &[("ban", "always")]).await;
    assert!(refused.text().contains("Nobody can disable themselves."), "{refused:?}");
    assert!(browser.page(&format!("{one}/delete")).await.contains("There is no way back."));
    let deleted = browser.post(&format!("{one}/delete"), &[]).await;
    assert_eq!(leads_to(&deleted), format!("{list}?done=deleted"));
    assert!(!browser.page(&list).await.contains(VIEWER.0));
}

#[tokio::test]
async fn a_lost_second_factor_is_reset() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let one = link(&browser.page(&format!("{ACCESS}/users")).await, VIEWER.0);
    let page = browser.page(&one).await;
    assert!(!page.contains("Reset the second factor"), "{page}");
    let required = browser.post(&format!("{one}/required"), &[("required", "true")]).await;
    assert_eq!(leads_to(&required), format!("{one}?done=required"));
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    let shown = viewer.post("/me/factor", &[("password", VIEWER.1)]).await;
    let secret = part(shown.text(), "secret=", "&").expect("a secret").to_owned();
    let mut clock = server.operator("http").await;
    let now = call(&mut clock, "diag.time", "{}").await["time"].as_i64().expect("a time");
    let code = support::totp::code(&secret, now);
    assert_eq!(viewer.post("/me/factor/confirm", &[("code", &code)]).await.status, 200);
    let page = browser.page(&one).await;
    assert!(page.contains("Reset the second factor"), "{page}");
    let reset = browser.post(&format!("{one}/factor"), &[]).await;
    assert_eq!(leads_to(&reset), format!("{one}?done=factor"));
    assert!(viewer.page("/me").await.contains("requires a second factor"));
}

#[tokio::test]
async fn people_are_added_and_invited() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let list = format!("{ACCESS}/invites");
    assert!(browser.page(&list).await.contains("Nobody is invited"));
    // Somebody without a login.
    let unknown = browser.post(&list, &[("emailAddress", "new@basicorg.example")]).await;
    assert!(unknown.text().contains("With a first password, a user is made."), "{unknown:?}");
    assert!(unknown.text().contains("value=\"new@basicorg.example\""), "{unknown:?}");
    let fields = [
        ("emailAddress", "new@basicorg.example"),
        ("password", "first-password"),
        ("isOrgAdmin", "true"),
    ];
    let added = browser.post(&list, &fields).await;
    assert_eq!(leads_to(&added), format!("{list}?done=added"));
    let new = Browser::login(&server, "new@basicorg.example", "first-password").await;
    assert!(new.page(&format!("{ACCESS}/users")).await.contains("administrator"));
    // Somebody of another organisation decides.
    let mut admin = server.admin("http").await;
    let org = call(&mut admin, "org.create", r#"{"key":"Other"}"#).await;
    let user = json!({ "emailAddress": "guest@other.example", "password": "guest-password",
        "defaultOrgId": org["id"] });
    call(&mut admin, "user.create", &user.to_string()).await;
    let invited = browser.post(&list, &[("emailAddress", "guest@other.example")]).await;
    assert_eq!(leads_to(&invited), format!("{list}?done=invited"));
    let page = browser.page(&list).await;
    assert!(page.contains("guest@other.example") && page.contains("1 invitation"), "{page}");
    assert!(!browser.page(&format!("{ACCESS}/users")).await.contains("guest@other.example"));
    let asked =
        browser.page(&format!("{list}/withdraw?emailAddress=guest%40other%2Eexample")).await;
    assert!(asked.contains("Withdraw the invitation"), "{asked}");
    let which = [("emailAddress", "guest@other.example")];
    let gone = browser.post(&format!("{list}/withdraw"), &which).await;
    assert_eq!(leads_to(&gone), format!("{list}?done=withdrawn"));
    let guest = Browser::login(&server, "guest@other.example", "guest-password").await;
    assert!(!guest.page("/me").await.contains("Invitations"));
    assert_eq!(guest.get(&format!("{ACCESS}/users")).await.status, 403);
    // The browser can't take away a membership by the form for invitations.
    let member = [("emailAddress", "new@basicorg.example")];
    let kept = browser.post(&format!("{list}/withdraw"), &member).await;
    assert!(leads_to(&kept).starts_with(&format!("{ACCESS}/users/")), "{kept:?}");
    new.page(&format!("{ACCESS}/users")).await;
}

#[tokio::test]
async fn roles_are_made_of_boxes() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let list = format!("{ACCESS}/roles");
    let tree = browser.page(&format!("{list}/new")).await;
    assert!(tree.contains("value=\"thing\"") && tree.contains("value=\"thing.list\""), "{tree}");
    let fields = [
        ("key", "watcher"),
        ("name", HOSTILE),
        ("desc", "Looks & listens"),
        ("perms", "thing.list"),
        ("perms", "alarm"),
        ("perms", "alarm.history"),
        ("topicSubscribe", "plant/#\r\n\r\nother/+\r\n"),
    ];
    let made = browser.post(&list, &fields).await;
    let one = leads_to(&made).split('?').next().expect("a path").to_owned();
    let mut chief = server.operator("http").await;
    let stored = call(&mut chief, "role.find", r#"{"key":"watcher"}"#).await;
    assert_eq!(stored["perms"], json!(["thing.list", "alarm"]));
    assert_eq!(stored["topicSubscribe"], json!(["plant/#", "other/+"]));
    let page = browser.page(&one).await;
    assert!(page.contains(ESCAPED) && !page.contains("<script>alert"), "{page}");
    assert!(page.contains("value=\"thing.list\" checked"), "{page}");
    assert!(page.contains("value=\"alarm\" checked"), "{page}");
    assert!(!page.contains("value=\"alarm.history\" checked"), "{page}");
    assert!(page.contains("Held by 0 users and 0 applications"), "{page}");
    let again = browser.post(&list, &fields).await;
    assert!(again.text().contains("exists already"), "{again:?}");
    assert!(again.text().contains("value=\"thing.list\" checked"), "{again:?}");
    // Held by somebody, it is shown there and stays.
    let member = json!({ "emailAddress": VIEWER.0, "roles": ["watcher"] }).to_string();
    let added = reply(&mut chief, "user.org.update", &member).await;
    if added["success"] != true {
        call(&mut chief, "user.org.add", &member).await;
    }
    let page = browser.page(&one).await;
    assert!(page.contains("Held by 1 user and 0 applications"), "{page}");
    assert!(page.contains(VIEWER.0), "{page}");
    let held = browser.post(&format!("{one}/delete"), &[]).await;
    assert_eq!(held.status, 409, "{held:?}");
    let changed = browser.post(&one, &[("name", "Watcher"), ("perms", "session.list")]).await;
    assert_eq!(leads_to(&changed), format!("{one}?done=stored"));
    let stored = call(&mut chief, "role.find", r#"{"key":"watcher"}"#).await;
    assert_eq!((&stored["perms"], &stored["desc"]), (&json!(["session.list"]), &json!("")));
    let none = json!({ "emailAddress": VIEWER.0, "roles": [] }).to_string();
    call(&mut chief, "user.org.update", &none).await;
    assert!(browser.page(&format!("{one}/delete")).await.contains("Delete the role"));
    assert_eq!(
        leads_to(&browser.post(&format!("{one}/delete"), &[]).await),
        format!("{list}?done=deleted")
    );
    assert_eq!(browser.get(&one).await.status, 404);
    // One from above is to look at.
    let page = browser.page(&list).await;
    let above = page.split("<tr ").find(|row| row.contains(">above<")).expect("the system's");
    let (_, path) = above.split_once("href=\"").expect("a link");
    let above = browser.page(path.split('"').next().expect("a path")).await;
    assert!(above.contains("from above") && !above.contains("Store the role"), "{above}");
}

#[tokio::test]
async fn tokens_of_applications_are_shown_once_and_rotated() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let list = format!("{ACCESS}/apps");
    let fields =
        [("name", HOSTILE), ("desc", "a<b"), ("roles", "device"), ("autoRegister", "true")];
    let made = browser.taking_gzip().post(&list, &fields).await;
    let first = secret(&made);
    let one = part(made.text(), "<p><a class=\"button\" href=\"", "\"").expect("a link").to_owned();
    let page = browser.page(&list).await;
    assert!(page.contains(ESCAPED) && !page.contains("<script>alert"), "{page}");
    assert!(!page.contains(&first), "{page}");
    let page = browser.page(&one).await;
    assert!(page.contains(ESCAPED) && !page.contains(&first), "{page}");
    assert!(page.contains("device"), "{page}");
    // A second one beside it, then the end of the first.
    let second =
        browser.taking_gzip().post(&format!("{one}/tokens"), &[("name", "2027 <new>")]).await;
    let second = secret(&second);
    let log_in = async |token: &str, key: &str| {
        let url = server.url("mqtt", key, token);
        client::Client::connect(&url).await
    };
    let old = log_in(&first, "mower-71").await.expect("a device");
    let _new = log_in(&second, "mower-72").await.expect("a device");
    let page = browser.page(&format!("{one}/rotate")).await;
    assert!(page.contains("2027 &lt;new&gt;") && page.contains("1 session"), "{page}");
    assert!(!page.contains(&first) && !page.contains(&second), "{page}");
    let mut chief = server.operator("http").await;
    let which = json!({ "appName": HOSTILE }).to_string();
    let tokens = call(&mut chief, "app.token.list", &which).await;
    let old_id = tokens["result"][0]["tokenId"].as_str().expect("an id");
    let token = format!("{one}/tokens/{old_id}");
    let disabled = browser.post(&token, &[("what", "disable"), ("reason", "rotated")]).await;
    assert_eq!(leads_to(&disabled), format!("{token}?done=token"));
    assert_eq!(end_reason(&mut chief, "mower-71").await, "revoked");
    drop(old);
    assert!(log_in(&first, "mower-71").await.is_err());
    assert_eq!(
        leads_to(&browser.post(&token, &[("what", "enable")]).await),
        format!("{token}?done=token")
    );
    drop(log_in(&first, "mower-71").await.expect("again"));
    assert!(browser.page(&format!("{token}/delete")).await.contains("Delete the token"));
    let deleted = browser.post(&format!("{token}/delete"), &[]).await;
    assert_eq!(leads_to(&deleted), format!("{one}?done=token-deleted"));
    assert!(log_in(&first, "mower-71").await.is_err());
    drop(log_in(&second, "mower-73").await.expect("a device"));
    // The application itself.
    let changed = browser.post(&one, &[("name", "garden"), ("desc", "")]).await;
    assert_eq!(leads_to(&changed), format!("{one}?done=stored"));
    let stored = call(&mut chief, "app.find", r#"{"name":"garden"}"#).await;
    assert_eq!((&stored["roles"], &stored["autoRegister"]), (&json!([]), &json!(false)));
    let disabled = browser.post(&format!("{one}/disable"), &[("ban", "always")]).await;
    assert_eq!(leads_to(&disabled), format!("{one}?done=banned"));
    assert!(log_in(&second, "mower-72").await.is_err());
    assert!(browser.page(&one).await.contains("disabled"));
    let enabled = browser.post(&format!("{one}/enable"), &[]).await;
    assert_eq!(leads_to(&enabled), format!("{one}?done=unbanned"));
    assert!(browser.page(&format!("{one}/delete")).await.contains("none of them can log in"));
    let deleted = browser.post(&format!("{one}/delete"), &[]).await;
    assert_eq!(leads_to(&deleted), format!("{list}?done=deleted"));
    assert_eq!(browser.get(&one).await.status, 404);
}

#[tokio::test]
async fn the_trail_is_filtered_and_paged() {
    let server = TestServer::start();
    let browser = operator(&server).await;
    let trail = format!("{ACCESS}/trail");
    assert!(browser.page(&trail).await.contains("Nothing in the trail"));
    let mut chief = server.operator("http").await;
    call(&mut chief, "role.create", r#"{"key":"watcher","perms":["thing.list"]}"#).await;
    for number in 0..61 {
        let change = json!({ "key": "watcher", "desc": format!("{HOSTILE} {number}") }).to_string();
        call(&mut chief, "role.update", &change).await;
    }
    let mut viewer = connect(&server.url("http", VIEWER.0, VIEWER.1)).await;
    let refused: Value = reply(&mut viewer, "role.delete", r#"{"key":"watcher"}"#).await;
    assert_eq!(refused["success"], false);
    let page = browser.page(&trail).await;
    assert!(page.contains(ESCAPED) && !page.contains("<script>alert"), "{page}");
    assert!(page.contains("has no permission for role.delete"), "{page}");
    assert_eq!(page.matches("<tr>").count(), 61, "{page}");
    let (_, next) = page.split_once("rel=\"next\" href=\"").expect("older ones");
    let next = next.split('"').next().expect("a path").replace("&amp;", "&");
    let older = browser.page(&next).await;
    assert!(older.contains("role.create") && older.contains("The newest"), "{older}");
    assert!(!older.contains("rel=\"next\""), "{older}");
    let failures = browser.page(&format!("{trail}?outcome=failure&user=viewer*")).await;
    assert_eq!(failures.matches("<tr>").count(), 2, "{failures}");
    assert!(failures.contains("refused") && !failures.contains("role.update"), "{failures}");
    let wrong = browser.get(&format!("{trail}?start=never")).await;
    assert!((400..500).contains(&wrong.status), "{wrong:?}");
}
