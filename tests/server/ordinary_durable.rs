//! Ordinary MQTT over the end of the server, and over the end of those to whom a session belongs:
//! retained messages, kept sessions, what waits in them, and deliveries in the middle.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use client::Version::{self, V5, V31, V311};
use serde_json::json;
use support::mqtt::{ALL, Connect, Wire};
use support::process::run;
use support::{Endpoints, ServerProcess, Signal, TestServer, call};

use crate::TR50D;

const FAILURE: u8 = 0x80;
const QUOTA_EXCEEDED: u8 = 0x97;

/// How a server ends, and how the next one comes by its state.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Stop,
    Kill,
    /// A backup of the running server, restored elsewhere.
    Backup,
}

const ENDS: [End; 3] = [End::Stop, End::Kill, End::Backup];

/// A server in a process of its own, and the directory that outlives it.
struct Site {
    server: ServerProcess,
    dir: tempfile::TempDir,
    starts: usize,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { server: TR50D.serve(&dir.path().join("0"), &[]), dir, starts: 0 }
    }

    /// Ends the server and starts another from what it left.
    async fn end(&mut self, end: End) {
        let data = self.dir.path().join(self.starts.to_string());
        if end == End::Backup {
            self.starts += 1;
            let copy = self.dir.path().join(format!("copy-{}", self.starts));
            let next = self.dir.path().join(self.starts.to_string());
            cli(&data, "backup", &copy).await;
            cli(&next, "restore", &copy).await;
            self.server.end(Signal::KILL).await;
            self.server = TR50D.serve(&next, &[]);
            return;
        }
        let signal = if end == End::Stop { Signal::TERM } else { Signal::KILL };
        self.server.end(signal).await;
        self.server = TR50D.serve(&data, &[]);
    }
}

/// Runs `tr50d backup` or `restore`, which has to do well.
async fn cli(data_dir: &Path, command: &str, copy: &Path) {
    let mut program = Command::new(TR50D.0);
    program.env("TR50D_SERVER__DATA_DIR", data_dir).arg(command).arg(copy);
    let done = tokio::task::spawn_blocking(|| run(program)).await.expect("run");
    assert!(done.0.success(), "{command}: {}", done.2);
}

async fn thing(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V5, key).open(server).await
}

async fn kept(server: &Endpoints, version: Version, key: &str) -> Wire {
    Connect::thing(version, key).resuming().open(server).await
}

fn ack(first: u8, pkid: u16) -> [u8; 4] {
    let [high, low] = pkid.to_be_bytes();
    [first, 2, high, low]
}

#[tokio::test]
async fn retained_messages_outlive_the_server() {
    let mut site = Site::start();
    let mut writer = thing(&site.server, "writer").await;
    let properties = [&b"\x03\0\x01t\x26\0\x01a\0\x01b"[..], b"\x02\0\0\x0e\x10"].concat();
    writer.send(&writer.publish_with(3, 5, "kept/1", &properties, "of an hour")).await;
    writer.expect(&ack(0x40, 5)).await;
    for (topic, payload) in [("kept/2", "old"), ("kept/2", "new"), ("kept/3", "x"), ("kept/3", "")]
    {
        writer.retain(topic, payload).await;
    }
    writer.send(&writer.publish(0x05, 6, "kept/4", "once")).await;
    writer.expect(&ack(0x50, 6)).await;
    writer.send(&ack(0x62, 6)).await;
    writer.expect(&ack(0x70, 6)).await;
    let york = Connect::login(V5, "york", "york", "demo-token-yorkorg");
    york.open(&site.server).await.retain("kept/5", "of york").await;
    for end in ENDS {
        site.end(end).await;
        let mut reader = thing(&site.server, "reader").await;
        assert_eq!(reader.subscribe("kept/#", 2).await, 2);
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(reader.message().await);
        }
        thing(&site.server, "writer").await.tell("kept/6", "live").await;
        assert_eq!(reader.message().await.texts(), ("kept/6", "live"));
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        let texts: Vec<_> = got.iter().map(|m| (m.texts(), m.qos, m.retain)).collect();
        let expected = [
            (("kept/1", "of an hour"), 1, true),
            (("kept/2", "new"), 1, true),
            (("kept/4", "once"), 2, true),
        ];
        assert_eq!(texts, expected, "{end:?}");
        assert_eq!(got[0].property(0x03), [b"t"], "{end:?}");
        assert_eq!(got[0].property(0x26), [b"\0\x01a\0\x01b"], "{end:?}");
        // [MQTT-3.3.2-6] the clock goes on.
        let left = got[0].property(0x02).pop().expect("an expiry");
        let left = u32::from_be_bytes(left.try_into().expect("four bytes"));
        assert!((3000..=3600).contains(&left), "{end:?} {left}");
        let mut york = york.open(&site.server).await;
        assert_eq!(york.subscribe("kept/#", 1).await, 1);
        assert_eq!(york.message().await.texts(), ("kept/5", "of york"));
        york.expect_quiet().await;
    }
}

/// As libtr50: it connects without a clean session and never subscribes again.
#[tokio::test]
async fn kept_sessions_and_what_waits_in_them_outlive_the_server() {
    let mut site = Site::start();
    let key = |version: Version| format!("reader-{version:?}");
    for version in ALL {
        let mut reader = kept(&site.server, version, &key(version)).await;
        assert_eq!(reader.subscribe(&format!("{version:?}/#"), 2).await, 2);
        assert_eq!(reader.subscribe("given/up", 1).await, 1);
        reader.unsubscribe("given/up").await;
        reader.leave().await;
    }
    for end in ENDS {
        let mut writer = Connect::thing(V311, "writer").open(&site.server).await;
        for version in ALL {
            let topic = format!("{version:?}/1");
            writer.send(&writer.publish(0, 0, &topic, "for nobody who is away")).await;
            writer.tell("given/up", "x").await;
            writer.tell(&topic, "one").await;
            writer.tell_once(4, &topic, "two").await;
            writer.tell(&topic, "three").await;
        }
        site.end(end).await;
        let mut writer = Connect::thing(V311, "writer").open(&site.server).await;
        for version in ALL {
            let mut reader = kept(&site.server, version, &key(version)).await;
            assert_eq!(reader.present(), version != V31, "{end:?} {version:?}");
            for (payload, qos) in [("one", 1), ("two", 2), ("three", 1)] {
                let message = reader.message().await;
                assert_eq!((message.texts().1, message.qos), (payload, qos), "{end:?} {version:?}");
                assert!(!message.dup && message.pkid != 0);
            }
            reader.expect_quiet().await;
            // Live, too, and with it no id that is taken.
            writer.tell(&format!("{version:?}/2"), "live").await;
            assert_eq!(reader.message().await.texts().1, "live");
            reader.leave().await;
        }
    }
}

/// [MQTT-4.4.0-1], [MQTT-4.3.3-6], [MQTT-4.3.3-10]: a delivery goes on where it was, whoever was lost.
#[tokio::test]
async fn deliveries_in_the_middle_go_on_with_the_next_server() {
    for end in ENDS {
        let mut site = Site::start();
        let mut begun = Vec::new();
        let mut writer = thing(&site.server, "writer").await;
        for version in ALL {
            let topic = format!("{version:?}");
            let mut reader = kept(&site.server, version, &format!("reader-{topic}")).await;
            assert_eq!(reader.subscribe(&topic, 2).await, 2);
            for (pkid, payload) in [(1, "released"), (2, "sent"), (3, "completed")] {
                writer.tell_once(pkid, &topic, payload).await;
            }
            writer.tell(&topic, "at least once").await;
            let mut ids = Vec::new();
            for _ in 0..4 {
                ids.push(reader.unacknowledged().await.pkid);
            }
            reader.complete(ids[2]).await;
            reader.send(&ack(0x50, ids[0])).await;
            reader.expect(&ack(0x62, ids[0])).await;
            // And one from the other side, not released.
            let mut sender = kept(&site.server, version, &format!("sender-{topic}")).await;
            sender.send(&sender.publish(0x04, 5, &format!("{topic}/in"), "x")).await;
            sender.expect(&ack(0x50, 5)).await;
            // PUBCOMP is not acknowledged; what is answered behind it says that it was read.
            reader.expect_quiet().await;
            begun.push((version, topic, ids, reader, sender));
        }
        site.end(end).await;
        let mut watcher = thing(&site.server, "watcher").await;
        assert_eq!(watcher.subscribe("+/in", 1).await, 1);
        for (version, topic, ids, ..) in begun {
            let mut reader = kept(&site.server, version, &format!("reader-{topic}")).await;
            assert_eq!(reader.present(), version != V31, "{end:?} {version:?}");
            let mut released = false;
            let mut again = Vec::new();
            for _ in 0..3 {
                let frame = reader.frame().await.expect("a packet");
                match frame == ack(0x62, ids[0]) {
                    true => released = true,
                    false => again.push((frame[0], u16::from_be_bytes(pkid_of(&frame)))),
                }
            }
            assert!(released, "{end:?} {version:?} {again:x?}");
            assert_eq!(again, [(0x3c, ids[1]), (0x3a, ids[3])], "{end:?} {version:?}");
            reader.send(&ack(0x70, ids[0])).await;
            reader.complete(ids[1]).await;
            reader.acknowledge(ids[3]).await;
            reader.expect_quiet().await;
            let mut sender = kept(&site.server, version, &format!("sender-{topic}")).await;
            assert_eq!(sender.present(), version != V31, "{end:?} {version:?}");
            // It was passed on before: not again.
            sender.send(&sender.publish(0x0c, 5, &format!("{topic}/in"), "x")).await;
            sender.expect(&ack(0x50, 5)).await;
            sender.send(&ack(0x62, 5)).await;
            sender.expect(&ack(0x70, 5)).await;
            watcher.expect_quiet().await;
            sender.tell_once(5, &format!("{topic}/in"), "y").await;
            assert_eq!(watcher.message().await.texts().1, "y");
        }
    }
}

/// The packet identifier of a short PUBLISH with QoS 1 or 2.
fn pkid_of(frame: &[u8]) -> [u8; 2] {
    let topic = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    [frame[4 + topic], frame[5 + topic]]
}

/// What was acknowledged before `kill -9` is there: messages in order and complete, the retained one
/// as new as that.
#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kills_at_any_moment() {
    const KILLS: usize = 10;
    let mut site = Site::start();
    let mut reader = kept(&site.server, V311, "reader").await;
    assert_eq!(reader.subscribe("count/+", 1).await, 1);
    reader.leave().await;
    let (mut said, mut seen) = (0_u32, 0_u32);
    for _ in 0..KILLS {
        let first = said + 1;
        let mut writer = Connect::thing(V311, "writer").open(&site.server).await;
        let load = tokio::spawn(async move {
            let mut acknowledged = first - 1;
            for number in first.. {
                let text = number.to_string();
                for (flags, topic) in [(2, "count/1"), (3, "count/2")] {
                    writer.send(&writer.publish(flags, 5, topic, &text)).await;
                    match writer.frame().await {
                        Some(frame) => assert_eq!(frame, ack(0x40, 5)),
                        None => return acknowledged,
                    }
                }
                acknowledged = number;
            }
            acknowledged
        });
        // The moment of the kill is what this is about.
        let [random] = tr50d::random::random().expect("random numbers");
        tokio::time::sleep(Duration::from_millis(20 + u64::from(random))).await;
        site.end(End::Kill).await;
        let acknowledged = load.await.expect("nothing was refused");
        let mut reader = kept(&site.server, V311, "reader").await;
        assert!(reader.present());
        // One more may have been stored than was acknowledged.
        let mut last = [seen; 2];
        let mut newest = seen;
        Connect::thing(V311, "writer").open(&site.server).await.tell("count/end", "").await;
        loop {
            let message = reader.message().await;
            let (topic, text) = message.texts();
            let Ok(number) = text.parse::<u32>() else { break };
            let stream = &mut last[usize::from(topic == "count/2")];
            assert_eq!(number, *stream + 1, "{topic}");
            (*stream, newest) = (number, newest.max(number));
        }
        assert!(last.iter().all(|last| (acknowledged..=acknowledged + 1).contains(last)));
        reader.leave().await;
        let mut late = thing(&site.server, "late").await;
        assert_eq!(late.subscribe("count/2", 0).await, 0);
        if last[1] > 0 {
            // It goes to the store before what is kept: here, too, one more may have been stored.
            let retained = late.message().await.texts().1.parse().expect("a number");
            assert!((last[1]..=acknowledged + 1).contains(&retained), "{retained} of {last:?}");
        }
        // Both streams are level again, so that the next number follows on both.
        let mut writer = Connect::thing(V311, "writer").open(&site.server).await;
        for (topic, at) in [("count/1", last[0]), ("count/2", last[1])] {
            if at < newest {
                writer.tell(topic, &newest.to_string()).await;
                let mut reader = kept(&site.server, V311, "reader").await;
                assert_eq!(reader.message().await.texts(), (topic, &*newest.to_string()));
                reader.leave().await;
            }
        }
        (said, seen) = (newest, newest);
    }
    assert!(said > KILLS as u32, "the load was next to none: {said}");
}

/// A session that has nothing to keep is not kept.
#[tokio::test]
async fn a_session_with_nothing_in_it_keeps_no_state() {
    let server = TestServer::start();
    for version in [V311, V5] {
        kept(&server, version, "empty").await.leave().await;
        let mut wire = kept(&server, version, "empty").await;
        assert!(!wire.present(), "{version:?}");
        assert_eq!(wire.subscribe("a", 1).await, 1);
        wire.leave().await;
        let mut wire = kept(&server, version, "empty").await;
        assert!(wire.present(), "{version:?}");
        wire.unsubscribe("a").await;
        wire.leave().await;
        assert!(!kept(&server, version, "empty").await.present(), "{version:?}");
    }
}

/// A login has 100 kept sessions at most; none of them makes room for another.
#[tokio::test]
async fn nobody_makes_room_for_a_login_with_a_hundred_sessions() {
    const MOST: usize = 100;
    let server = TestServer::start();
    let session = |number: usize| {
        let id = format!("client-{number}");
        Connect::thing(V311, "many").id(&id).resuming()
    };
    for number in 0..MOST {
        let mut wire = session(number).open(&server).await;
        assert!(!wire.present());
        assert_eq!(wire.subscribe("$share/g/jobs", 1).await, 1);
        assert_eq!(wire.subscribe(&format!("end/{number}"), 1).await, 1);
        wire.leave().await;
    }
    let mut wire = session(MOST).open(&server).await;
    assert_eq!(wire.subscribe("$share/g/jobs", 1).await, FAILURE);
    let five = Connect::thing(V5, "many").id("five").resuming();
    let (codes, why) = five.open(&server).await.subscribe_to(["a"], 1, b"").await;
    assert_eq!(codes, [QUOTA_EXCEEDED]);
    assert!(why.contains("100 kept sessions"), "{why}");
    // All are there; they take the jobs, one each.
    let mut writer = thing(&server, "writer").await;
    for number in 0..MOST {
        writer.tell("jobs", &number.to_string()).await;
    }
    let mut done = 0;
    for number in 0..MOST {
        let mut wire = session(number).open(&server).await;
        assert!(wire.present(), "{number}");
        writer.tell(&format!("end/{number}"), "").await;
        while wire.message().await.topic == "jobs" {
            done += 1;
        }
        wire.unsubscribe("$share/g/jobs").await;
        wire.leave().await;
    }
    assert_eq!(done, MOST);
    // Who begins anew with one of them gives that back.
    drop(Connect::thing(V311, "many").id("client-0").open(&server).await);
    let mut wire = session(MOST).open(&server).await;
    assert_eq!(wire.subscribe("end", 1).await, 1);
    writer.tell("end", "").await;
    assert_eq!(wire.message().await.topic, "end");
}

/// Who deletes a thing, an application or a user (an organisation is deleted when it has none of them
/// left) ends their sessions: the next who comes under that name finds nothing, and nothing of the
/// old one takes part any more.
#[tokio::test]
async fn a_session_ends_with_who_owns_it() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    for version in ALL {
        let states = ["away", "lost", "there"];
        for (owner, state) in
            ["thing", "app", "user"].into_iter().flat_map(|owner| states.map(|s| (owner, s)))
        {
            let org = json!({"key": format!("Meadow-{owner}-{state}-{version:?}")}).to_string();
            let token = format!("token-of-the-{owner}-{state}-{version:?}");
            let email = format!("{owner}-{state}-{version:?}@meadow.example").to_lowercase();
            let roles = ["device"];
            let app = json!({"name": token, "token": token, "autoRegister": true, "roles": roles});
            let app = app.to_string();
            let member = json!({"emailAddress": email, "roles": roles}).to_string();
            let user = json!({"emailAddress": email, "password": "goat-password"}).to_string();
            let switch_to = async |admin: &mut client::Client, org: &str| {
                call(admin, "session.org.switch", org).await;
            };
            call(&mut admin, "org.create", &org).await;
            switch_to(&mut admin, &org).await;
            call(&mut admin, "app.create", &app).await;
            let mut login = Connect::login(version, "c", "goat", &token).resuming();
            let mut user_id = json!(null);
            if owner == "user" {
                user_id = call(&mut admin, "user.create", &user).await["id"].clone();
                call(&mut admin, "user.org.add", &member).await;
                login.login = Some((email, "goat-password".to_owned()));
            }
            let herd = Connect::login(V5, "h", "herd", &token);
            let what = format!("{version:?} {owner}, {state}");
            let mut old = login.open(&server).await;
            for filter in ["news", "$share/g/jobs"] {
                assert_eq!(old.subscribe(filter, 2).await, 2, "{what}");
            }
            let mut others = herd.open(&server).await;
            others.tell("news", "in flight").await;
            assert_eq!(old.unacknowledged().await.texts().1, "in flight");
            old.send(&old.publish(0x04, 5, "held", "x")).await;
            old.expect(&ack(0x50, 5)).await;
            // Away, lost without the server's knowing it yet, or connected.
            let still_there = match state {
                "away" => {
                    old.leave().await;
                    None
                }
                "lost" => {
                    drop(old);
                    None
                }
                _ => Some(old),
            };
            others.tell("news", "waiting").await;

            // The end, and the same names again.
            match owner {
                "thing" => drop(call(&mut admin, "thing.delete", r#"{"key":"goat"}"#).await),
                "app" => {
                    let name = json!({ "name": token }).to_string();
                    call(&mut admin, "app.delete", &name).await;
                    call(&mut admin, "app.create", &app).await;
                }
                _ => {
                    let id = json!({ "id": user_id }).to_string();
                    call(&mut admin, "user.delete", &id).await;
                    call(&mut admin, "user.create", &user).await;
                    call(&mut admin, "user.org.add", &member).await;
                }
            }
            if let Some(mut old) = still_there {
                while old.frame().await.is_some() {}
            }
            let mut new = login.open(&server).await;
            assert!(!new.present(), "{what}");
            assert_eq!(new.subscribe("begin", 1).await, 1);
            // Nothing that the old one held has a part in what comes now.
            let mut others = herd.open(&server).await;
            others.tell("begin", "").await;
            assert_eq!(new.message().await.topic, "begin", "{what}");
            assert_eq!(others.subscribe("$share/g/jobs", 0).await, 0);
            assert_eq!(others.subscribe("held", 0).await, 0);
            for number in 0..4 {
                others.tell("jobs", &number.to_string()).await;
                assert_eq!(others.message().await.texts().1, number.to_string(), "{what}");
            }
            others.tell("news", "for nobody").await;
            new.expect_quiet().await;
            new.tell_once(5, "held", "y").await;
            assert_eq!(others.message().await.texts().1, "y", "{what}");
            switch_to(&mut admin, r#"{"key":"SYSTEM"}"#).await;
        }
    }
}
