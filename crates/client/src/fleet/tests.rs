use super::*;
use crate::test_server::{Speech, TestServer};
use crate::{Url, Version};

const SHORT: Duration = Duration::from_millis(200);

fn url(server: &TestServer, scheme: &str) -> Url {
    server.url(scheme, "").parse().expect("a URL")
}

async fn mixed_plan() -> Plan {
    let mqtt = TestServer::start(Speech::Mqtt, usize::MAX).await;
    let tcp = TestServer::start(Speech::Tcp, usize::MAX).await;
    let http = TestServer::start(Speech::Http, usize::MAX).await;
    let urls = vec![url(&mqtt, "mqtt"), url(&tcp, "tcp"), url(&http, "http")];
    let mut plan = Plan::new(url(&mqtt, "mqtt"), 36);
    plan.urls = urls;
    plan.versions = Some(Versions::Mix);
    plan.client = ClientKind::Mix;
    plan.keep_alive_s = 60;
    plan
}

#[tokio::test]
async fn a_mixed_fleet_calls_and_works() {
    for qos1 in [false, true] {
        let plan = Plan { qos1, ..mixed_plan().await };
        let mut fleet = Fleet::connect(&plan).await.expect("a good plan");
        assert_eq!(fleet.len(), 36);
        let replies = fleet.call_all("diag.ping", None).await;
        assert!(replies.iter().all(|reply| reply.as_ref().is_ok_and(Reply::success)));
        let mut load = Load::command("diag.ping", None, SHORT).expect("JSON");
        load.window = 30;
        let report = fleet.run(&load).await;
        assert!(report.is_clean(), "{report}");
        assert!(report.commands.answered >= 36 && report.latency.p50_ms > 0.0, "{report}");
        assert_eq!(report.commands.sent, report.commands.answered);
        assert_eq!(fleet.len(), 36);
        fleet.close().await;
    }
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut fleet = Fleet::connect(&mixed_plan().await).await.expect("a good plan");
    let mut load = Load::command("diag.ping", None, 5 * SHORT).expect("JSON");
    load.rate = 180.0;
    let report = fleet.run(&load).await;
    assert!(report.is_clean(), "{report}");
    // One second at 180 a second: five from each device.
    assert!((170..=180).contains(&report.commands.sent), "{report}");
}

#[tokio::test]
async fn an_idle_fleet_sends_nothing_and_stops_when_told() {
    let stop = CancellationToken::new();
    let plan = mixed_plan().await;
    let fleet = Fleet::connect_watched(&plan, Arc::default(), stop.clone()).await;
    let mut fleet = fleet.expect("a good plan");
    let report = fleet.run(&Load::idle(SHORT)).await;
    assert!(report.is_clean() && report.commands.sent == 0, "{report}");
    stop.cancel();
    let report = fleet.run(&Load::idle(Duration::from_secs(3600))).await;
    assert!(report.is_clean() && fleet.len() == 36, "{report}");
    let load = Load::command("diag.ping", None, Duration::from_secs(3600)).expect("JSON");
    let report = fleet.run(&load).await;
    assert!(report.is_clean() && report.seconds < 60.0, "{report}");
}

#[tokio::test]
async fn failures_losses_and_dropped_connections_are_told_apart() {
    let check = async |answers_max, command: &str, counts: [bool; 3]| {
        for (speech, scheme) in [(Speech::Mqtt, "mqtt"), (Speech::Tcp, "tcp")] {
            let server = TestServer::start(speech, answers_max).await;
            let plan = Plan::new(url(&server, scheme), 2);
            let mut fleet = Fleet::connect(&plan).await.expect("a good plan");
            let mut load = Load::command(command, None, SHORT).expect("JSON");
            load.timeout = SHORT / 2;
            let report = fleet.run(&load).await;
            let Commands { failed, lost, .. } = report.commands;
            let found = [failed > 0, lost > 0, report.connections.dropped == 2];
            // Over TCP a lost answer costs the connection: the order is all there is.
            let in_order = scheme == "tcp" && counts[1];
            let expected = [counts[0], counts[1], counts[2] || in_order];
            assert_eq!(found, expected, "{scheme} {command}: {report}");
            assert!(!report.is_clean());
            let reasons: u64 = report.failures.iter().map(|failures| failures.count).sum();
            assert_eq!(reasons, failed, "{report}");
            assert!(report.failures.iter().all(|failures| failures.code == Some(-1)), "{report}");
        }
    };
    check(usize::MAX, "diag.fail", [true, false, false]).await;
    check(usize::MAX, "diag.silence", [false, true, false]).await;
    check(3, "diag.ping", [false, true, true]).await;
}

#[tokio::test]
async fn refused_logins_are_counted_with_their_reason() {
    let server = TestServer::start(Speech::Mqtt, usize::MAX).await;
    for (client, version) in [(ClientKind::Own, Version::V31), (ClientKind::Rumqttc, Version::V311)]
    {
        let text = format!("mqtt://:wrong@{}", server.address);
        let mut plan = Plan::new(text.parse().expect("a URL"), 3);
        plan.client = client;
        plan.versions = Some(Versions::One(version));
        let fleet = Fleet::connect(&plan).await.expect("a good plan");
        assert!(fleet.is_empty());
        let report = fleet.report(SHORT);
        assert_eq!((report.connections.failed, report.errors.len()), (3, 1), "{report}");
    }
}

#[tokio::test]
async fn other_machines_are_not_loaded_by_mistake() {
    let plan = Plan::new("mqtt://:token@192.0.2.1".parse().expect("a URL"), 1);
    let error = Fleet::connect(&plan).await.err().expect("refused");
    assert!(error.to_string().starts_with("mqtt://192.0.2.1:1883 is not on this machine"));
}
