//! Who fills a pool of ordinary MQTT takes nothing from others: of another organisation, or with
//! another token of the same one (`docs/limits.md`).

use client::Version::{self, V5, V311};
use serde_json::json;
use support::http::metrics;
use support::mqtt::{Connect, DISCONNECT, Wire};
use support::{Endpoints, Hands, TestServer, call, eventually};

const QUOTA_EXCEEDED: u8 = 0x97;
const FAILURE: u8 = 0x80;

/// The tokens of BasicOrg, and of YorkOrg.
const GREEDY: &str = "demo-token-basicorg";
const NEIGHBOUR: &str = "demo-basicorg-16";
const YORK: &str = "demo-token-yorkorg";

async fn open(server: &Endpoints, version: Version, key: &str, token: &str) -> Wire {
    Connect::login(version, key, key, token).open(server).await
}

async fn kept(server: &Endpoints, version: Version, key: &str, token: &str) -> Wire {
    Connect::login(version, key, key, token).resuming().open(server).await
}

/// Retains a message with QoS 1; the code, and what is said of a refusal.
async fn retain(wire: &mut Wire, topic: &str, payload: &str) -> (u8, String) {
    wire.send(&wire.publish(0x03, 9, topic, payload)).await;
    wire.acknowledgement().await
}

async fn metric(server: &Endpoints, name: &str, labels: &str) -> u64 {
    let page = metrics(server).await;
    let start = format!("tr50d_{name}{{{labels}}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.map_or(0, |value| value.parse().expect("a number"))
}

async fn used(server: &Endpoints, pool: &str) -> u64 {
    metric(server, "pool_used", &format!(r#"pool="{pool}""#)).await
}

async fn used_is(server: &Endpoints, pool: &str, amount: u64) {
    eventually(&format!("{amount} used of {pool}"), async || used(server, pool).await == amount)
        .await;
}

/// Retains messages until one is refused; how many there are, and what was said.
async fn fill(wire: &mut Wire, prefix: &str) -> (usize, String) {
    for number in 0.. {
        let (code, why) = retain(wire, &format!("{prefix}/{number}"), "x").await;
        if code != 0 {
            assert_eq!(code, QUOTA_EXCEEDED);
            return (number, why);
        }
    }
    unreachable!("there is a bound")
}

#[tokio::test]
async fn who_fills_the_retained_messages_takes_them_from_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_LIMITS__RETAINED_MESSAGES", "64")];
    let server = TestServer::in_dir(dir.path(), &settings);
    let mut york = open(&server, V5, "york", YORK).await;
    assert_eq!(retain(&mut york, "state", "before").await.0, 0);
    let mut greedy = open(&server, V5, "greedy", GREEDY).await;
    let (filled, why) = fill(&mut greedy, "fill").await;
    assert!(filled > 48, "{filled}");
    assert!(why.contains("limits.retained_messages") && why.contains("your share"), "{why}");
    greedy.send(&greedy.publish(0x05, 3, "more", "x")).await;
    assert_eq!(greedy.acknowledgement().await.0, QUOTA_EXCEEDED, "with QoS 2");
    // Another token of the organisation, and another organisation.
    let mut neighbour = open(&server, V5, "neighbour", NEIGHBOUR).await;
    assert_eq!(retain(&mut neighbour, "neighbour", "x").await, (0, String::new()));
    let (more, why) = fill(&mut neighbour, "neighbour").await;
    assert!(more > 0 && why.contains("your organisation has its share"), "{more} {why}");
    assert_eq!(retain(&mut york, "more", "x").await, (0, String::new()));
    assert_eq!(york.subscribe("state", 0).await, 0);
    assert_eq!(york.message().await.texts(), ("state", "before"));
    // What adds nothing goes on, and who clears as much as others have got has room again.
    assert_eq!(retain(&mut greedy, "fill/0", "y").await.0, 0);
    for number in 1..=more + 2 {
        assert_eq!(retain(&mut greedy, "other", "x").await.0, QUOTA_EXCEEDED);
        assert_eq!(retain(&mut greedy, &format!("fill/{number}"), "").await.0, 0);
    }
    assert_eq!(retain(&mut greedy, "other", "x").await.0, 0);
    assert_eq!(retain(&mut greedy, "fill/1", "x").await.0, QUOTA_EXCEEDED);

    // A client that can't be told is acknowledged, so that it goes on, and its message is seen now.
    let mut reader = open(&server, V5, "reader", GREEDY).await;
    assert_eq!(reader.subscribe("old/#", 0).await, 0);
    let mut old = open(&server, V311, "old", GREEDY).await;
    old.send(&old.publish(0x03, 9, "old/1", "x")).await;
    old.expect(&[0x40, 2, 0, 9]).await;
    assert_eq!(reader.message().await.texts(), ("old/1", "x"));
    let labels = r#"qos="1",reason="limit""#;
    let counted = async || metric(&server, "mqtt_publishes_refused_total", labels).await > 0;
    eventually("it is counted", counted).await;
    assert_eq!(reader.subscribe("old/#", 0).await, 0);
    reader.expect_quiet().await;

    let messages = filled as u64 + 2;
    used_is(&server, "retained_messages", messages).await;
    let bytes = used(&server, "retained_bytes").await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &settings);
    used_is(&server, "retained_messages", messages).await;
    used_is(&server, "retained_bytes", bytes).await;
    let mut greedy = open(&server, V5, "greedy", GREEDY).await;
    assert_eq!(retain(&mut greedy, "fill/1", "x").await.0, QUOTA_EXCEEDED);
    for topic in (0..filled).map(|number| format!("fill/{number}")).chain(["other".to_owned()]) {
        assert_eq!(retain(&mut greedy, &topic, "").await.0, 0);
    }
    used_is(&server, "retained_messages", more as u64 + 3).await;
}

#[tokio::test]
async fn organisations_below_one_get_no_more_together() {
    let server = TestServer::with(&[("TR50D_LIMITS__RETAINED_MESSAGES", "64")]);
    let mut operator = server.operator("http").await;
    let mut ids = Vec::new();
    let mut filled = 0;
    for number in 0..4 {
        let org = json!({ "key": format!("Below-{number}") }).to_string();
        ids.push(call(&mut operator, "org.create", &org).await["id"].clone());
        call(&mut operator, "session.org.switch", &org).await;
        let token = format!("token-of-below-{number}");
        let app =
            json!({"name": "below", "token": token, "autoRegister": true, "roles": ["device"]});
        call(&mut operator, "app.create", &app.to_string()).await;
        call(&mut operator, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
        let mut wire = open(&server, V5, "below", &token).await;
        filled += fill(&mut wire, "fill").await.0;
    }
    assert!((48..=60).contains(&filled), "{filled}");
    let mut york = open(&server, V5, "york", YORK).await;
    let (room, _) = fill(&mut york, "york").await;
    assert!(room >= 3, "{room}");
    // What an organisation had is room again when it is gone.
    for (number, id) in ids.iter().enumerate() {
        let org = json!({ "key": format!("Below-{number}") }).to_string();
        call(&mut operator, "session.org.switch", &org).await;
        call(&mut operator, "app.delete", r#"{"name":"below"}"#).await;
        call(&mut operator, "thing.delete", r#"{"key":"below"}"#).await;
        call(&mut operator, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
        call(&mut operator, "org.delete", &json!({ "id": id }).to_string()).await;
    }
    used_is(&server, "retained_messages", room as u64).await;
}

#[tokio::test]
async fn who_fills_the_sessions_ends_none_of_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_LIMITS__BROKER_LINKS", "32")];
    let server = TestServer::in_dir(dir.path(), &settings);
    let mut york = kept(&server, V5, "york", YORK).await;
    assert_eq!(york.subscribe("york", 1).await, 1);
    york.leave().await;
    let mut refused = None;
    for number in 0..32 {
        let mut wire = kept(&server, V5, &format!("greedy-{number}"), GREEDY).await;
        let (codes, why) = wire.subscribe_to(["fill"], 1, b"").await;
        if codes == [1] {
            wire.leave().await;
            continue;
        }
        refused = Some((number, why));
        // It goes on without: what needs no session works.
        wire.send(&wire.publish(0x02, 9, "x", "x")).await;
        assert_eq!(wire.acknowledgement().await.0, 0);
        break;
    }
    let (held, why) = refused.expect("a bound");
    assert!(held > 20, "{held}");
    assert!(why.contains("limits.broker_links") && why.contains("your share"), "{why}");
    let mut old = kept(&server, V311, "old", GREEDY).await;
    assert_eq!(old.subscribe("fill", 1).await, FAILURE);
    for (key, token) in [("neighbour", NEIGHBOUR), ("york-2", YORK)] {
        let mut other = kept(&server, V5, key, token).await;
        assert_eq!(other.subscribe("own", 1).await, 1, "{key}");
        other.leave().await;
    }
    // All that was kept is there still, after a restart, too.
    used_is(&server, "mqtt_sessions", held as u64 + 3).await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &settings);
    used_is(&server, "mqtt_sessions", held as u64 + 3).await;
    for number in 0..held {
        let wire = kept(&server, V5, &format!("greedy-{number}"), GREEDY).await;
        assert!(wire.present(), "{number}");
    }
    let mut greedy = kept(&server, V5, "greedy-new", GREEDY).await;
    assert_eq!(greedy.subscribe("fill", 1).await, QUOTA_EXCEEDED);
    // A clean start gives the place back; one of them to those who are below their share.
    drop(open(&server, V5, "greedy-0", GREEDY).await);
    assert_eq!(greedy.subscribe("fill", 1).await, QUOTA_EXCEEDED);
    drop(open(&server, V5, "greedy-1", GREEDY).await);
    assert_eq!(greedy.subscribe("fill", 1).await, 1);
}

#[tokio::test]
async fn sessions_that_are_over_take_no_room_from_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_LIMITS__BROKER_LINKS", "16")];
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &settings, hands.clone());
    // They outlive their connections by ten seconds.
    let expiry = [0x11, 0, 0, 0, 10];
    let kept = async |key: &str| {
        let connect = Connect::login(V5, key, key, GREEDY).resuming().properties(&expiry);
        connect.open(&server).await
    };
    let mut number = 0;
    loop {
        number += 1;
        let mut wire = kept(&format!("kept-{number}")).await;
        let code = wire.subscribe("fill", 1).await;
        wire.leave().await;
        if code != 1 {
            assert_eq!(code, QUOTA_EXCEEDED);
            break;
        }
    }
    let mut late = kept("late").await;
    assert_eq!(late.subscribe("fill", 1).await, QUOTA_EXCEEDED);
    hands.pass(11);
    assert_eq!(late.subscribe("fill", 1).await, 1);
}

#[tokio::test]
async fn who_fills_the_filters_leaves_others_theirs() {
    let server = TestServer::with(&[("TR50D_LIMITS__BROKER_FILTERS", "64")]);
    let mut greedy = open(&server, V5, "greedy", GREEDY).await;
    let filters: Vec<_> = (0..80).map(|number| format!("fill/{number}")).collect();
    let (codes, why) = greedy.subscribe_to(&filters, 1, b"").await;
    let granted = codes.iter().filter(|code| **code == 1).count();
    assert!((48..64).contains(&granted), "{granted}");
    assert!(why.contains("limits.broker_filters"), "{why}");
    for (key, token) in [("neighbour", NEIGHBOUR), ("york", YORK)] {
        let mut other = open(&server, V5, key, token).await;
        assert_eq!(other.subscribe("own/+", 1).await, 1, "{key}");
        other.tell("own/1", "x").await;
        assert_eq!(other.message().await.texts(), ("own/1", "x"));
    }
    // Filters that are there are nobody's loss.
    let mut again = open(&server, V5, "again", GREEDY).await;
    assert_eq!(again.subscribe("fill/0", 1).await, 1);
    assert_eq!(again.subscribe("new", 1).await, QUOTA_EXCEEDED);
    greedy.unsubscribe("fill/1").await;
    assert_eq!(again.subscribe("new", 1).await, 1);
    drop((greedy, again));
    for pool in ["topic_filters", "wildcard_levels", "subscriptions", "mqtt_sessions"] {
        used_is(&server, pool, 0).await;
    }
}

#[tokio::test]
async fn a_long_filter_counts_as_several() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let long = "x".repeat(1000);
    let shared = format!("$share/g/{long}");
    let pools = async |subscriptions, filters| {
        used_is(&server, "subscriptions", subscriptions).await;
        used_is(&server, "topic_filters", filters).await;
    };
    for version in [V311, V5] {
        let mut wire = open(&server, version, "long", GREEDY).await;
        for _ in 0..2 {
            assert_eq!(wire.subscribe(&long, 1).await, 1);
            pools(4, 4).await;
        }
        let mut other = open(&server, version, "other", NEIGHBOUR).await;
        assert_eq!(other.subscribe(&long, 1).await, 1);
        assert_eq!(other.subscribe(&shared, 1).await, 1);
        pools(12, 8).await;
        wire.unsubscribe(&long).await;
        pools(8, 8).await;
        other.unsubscribe(&shared).await;
        pools(4, 4).await;
        drop((wire, other));
        pools(0, 0).await;
    }
    let mut wire = kept(&server, V5, "kept", GREEDY).await;
    assert_eq!(wire.subscribe(&long, 1).await, 1);
    wire.leave().await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    used_is(&server, "subscriptions", 4).await;
    used_is(&server, "topic_filters", 4).await;
    drop(open(&server, V5, "kept", GREEDY).await);
    used_is(&server, "subscriptions", 0).await;
}

#[tokio::test]
async fn who_fills_the_levels_of_wildcards_leaves_others_theirs() {
    let server = TestServer::start();
    let mut greedy = Vec::new();
    let mut why = String::new();
    for number in 0..2 {
        let mut wire = open(&server, V5, &format!("greedy-{number}"), GREEDY).await;
        let filter = |filter| format!("a/+/{number}-{filter}{}", "/x".repeat(97));
        why = wire.subscribe_to((0..1000).map(filter), 0, b"").await.1;
        greedy.push(wire);
    }
    assert!(why.contains("levels of filters with wildcards"), "{why}");
    assert_eq!(greedy[0].subscribe("+/a", 0).await, QUOTA_EXCEEDED);
    for (key, token) in [("neighbour", NEIGHBOUR), ("york", YORK)] {
        let mut other = open(&server, V5, key, token).await;
        assert_eq!(other.subscribe("own/+/#", 1).await, 1, "{key}");
    }
}

#[tokio::test]
async fn who_has_most_subscriptions_leaves_others_theirs() {
    let server = TestServer::with(&[("TR50D_LIMITS__SUBSCRIPTIONS", "64")]);
    let mut greedy = open(&server, V5, "greedy", GREEDY).await;
    // Those of things count as others do.
    let filters: Vec<_> = (0..80).map(|number| format!("thing/self/property/{number}")).collect();
    let (codes, why) = greedy.subscribe_to(&filters, 1, b"").await;
    assert!(codes.contains(&1) && codes.ends_with(&[QUOTA_EXCEEDED]), "{codes:?}");
    assert!(why.contains("limits.subscriptions"), "{why}");
    for (key, token) in [("neighbour", NEIGHBOUR), ("york", YORK)] {
        let mut other = open(&server, V5, key, token).await;
        assert_eq!(other.subscribe("thing/self/property/x", 1).await, 1, "{key}");
        assert_eq!(other.subscribe("x", 1).await, 1, "{key}");
    }
}

#[tokio::test]
async fn what_waits_for_one_takes_no_room_from_others() {
    let server = TestServer::with(&[("TR50D_LIMITS__KEPT_BYTES", "262144")]);
    for (key, token) in [("greedy", GREEDY), ("neighbour", NEIGHBOUR), ("york", YORK)] {
        let mut wire = kept(&server, V5, key, token).await;
        assert_eq!(wire.subscribe(&format!("for/{key}"), 1).await, 1);
        wire.leave().await;
    }
    let payload = "x".repeat(4000);
    let mut writer = open(&server, V5, "writer", GREEDY).await;
    for _ in 0..80 {
        writer.tell("for/greedy", &payload).await;
    }
    let refused = async || metric(&server, "pool_refused_total", r#"pool="kept_bytes""#).await > 0;
    eventually("some were dropped", refused).await;
    writer.tell("for/neighbour", "x").await;
    open(&server, V5, "york-2", YORK).await.tell("for/york", "x").await;
    for (key, token) in [("neighbour", NEIGHBOUR), ("york", YORK)] {
        let mut wire = kept(&server, V5, key, token).await;
        assert_eq!(wire.message().await.texts().1, "x", "{key}");
    }
    // Nothing of what was kept was taken away.
    let mut greedy = kept(&server, V5, "greedy", GREEDY).await;
    for _ in 0..32 {
        assert_eq!(greedy.message().await.payload.len(), 4000);
    }
    let acknowledged = async || used(&server, "kept_bytes").await < 32 * 4096;
    eventually("there is room again", acknowledged).await;
    writer.tell("for/greedy", "the last").await;
    let mut more = 0;
    while greedy.message().await.payload.len() == 4000 {
        more += 1;
    }
    assert!(more < 48, "{more}");
    used_is(&server, "kept_bytes", 0).await;
}

#[tokio::test]
async fn a_will_that_waits_has_its_place_until_it_is_sent_or_dropped() {
    let server = TestServer::start();
    let delayed = |seconds: u8| {
        let properties: &'static [u8] = match seconds {
            0 => &[0x18, 0, 0, 0, 0],
            1 => &[0x18, 0, 0, 0, 1],
            _ => &[0x18, 0, 0, 1, 0],
        };
        let mut connect = Connect::login(V5, "mortal", "mortal", GREEDY).resuming();
        connect.will = Some(("wills/1", "lost", properties, false));
        connect
    };
    let mut reader = open(&server, V5, "reader", GREEDY).await;
    assert_eq!(reader.subscribe("wills/#", 0).await, 0);
    drop(delayed(100).open(&server).await);
    used_is(&server, "delayed_wills", 1).await;
    let mut back = delayed(100).open(&server).await;
    used_is(&server, "delayed_wills", 0).await;
    back.send(DISCONNECT).await;
    back.expect_end().await;
    drop(delayed(1).open(&server).await);
    assert_eq!(reader.message().await.texts(), ("wills/1", "lost"));
    used_is(&server, "delayed_wills", 0).await;
    reader.expect_quiet().await;
}

#[tokio::test]
async fn a_will_of_who_is_deleted_keeps_no_place() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let org = json!({ "id": "5cf885f41c5bd771c8065be8" }).to_string();
    call(&mut admin, "session.org.switch", &org).await;
    let viewer = "viewer@basicorg.example";
    let delayed = |user: &str, secret: &str| {
        let mut connect = Connect::login(V5, user, user, secret).resuming();
        connect.will = Some(("wills/1", "lost", &[0x18, 0, 0, 1, 0], false));
        connect
    };
    for number in 0..2 {
        drop(delayed(&format!("mortal-{number}"), GREEDY).open(&server).await);
    }
    drop(delayed(viewer, "demo-viewer-password").open(&server).await);
    used_is(&server, "delayed_wills", 3).await;
    call(&mut admin, "thing.delete", r#"{"key":"mortal-0"}"#).await;
    used_is(&server, "delayed_wills", 2).await;
    let user = json!({ "emailAddress": viewer }).to_string();
    call(&mut admin, "user.delete", &user).await;
    used_is(&server, "delayed_wills", 1).await;
    // Nor does one of who is still connected.
    let mut connected = delayed("mortal-2", GREEDY).open(&server).await;
    call(&mut admin, "thing.delete", r#"{"key":"mortal-2"}"#).await;
    while connected.frame().await.is_some() {}
    let gone = async || metric(&server, "pool_used", r#"pool="sessions""#).await == 1;
    eventually("its session is gone", gone).await;
    assert_eq!(used(&server, "delayed_wills").await, 1);
    let app = json!({ "name": "demo-app" }).to_string();
    call(&mut admin, "app.delete", &app).await;
    used_is(&server, "delayed_wills", 0).await;
}
