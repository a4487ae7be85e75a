//! What Prometheus reads, and figures of the last hour: the forms of `/metrics`, the names that the
//! dashboard and the alerts use, `stats.series`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::http::{Answer, log_in, metrics, post, post_with, send};
use support::{Endpoints, TestServer, call, eventually, reply};

use crate::alerts::rules;
use crate::outside_clients::wanted;

/// What Prometheus 2 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

async fn scrape(server: &Endpoints, accept: &str) -> Answer {
    let header = if accept.is_empty() { String::new() } else { format!("\r\nAccept: {accept}") };
    send(server, &format!("GET /metrics HTTP/1.1{header}"), b"").await
}

/// A server that has done a little of everything.
async fn busy() -> TestServer {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    call(&mut thing, "property.publish", r#"{"key":"t","value":1}"#).await;
    reply(&mut thing, "thing.find", r#"{"key":"nobody"}"#).await;
    let mut operator = server.operator("tcp").await;
    call(&mut operator, "session.list", "{}").await;
    let wrong =
        r#"{"auth":{"command":"api.authenticate","params":{"username":"a","password":"b"}}}"#;
    post(&server, wrong).await;
    server
}

#[tokio::test]
async fn the_form_of_the_metrics_is_the_one_that_is_asked_for() {
    let server = TestServer::start();
    for accept in ["", "*/*", "text/html, */*;q=0.1", "application/openmetrics-text;q=0"] {
        let answer = scrape(&server, accept).await;
        assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert!(!answer.text().contains("# EOF"), "{accept}");
        assert!(answer.text().contains("\n# TYPE tr50d_commands_total counter\n"), "{accept}");
    }
    for accept in [PROMETHEUS, "application/openmetrics-text"] {
        let answer = scrape(&server, accept).await;
        let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.header("Content-Type"), Some(open));
        assert_eq!(answer.header("Vary"), Some("Accept"));
        assert!(answer.text().ends_with("\n# EOF\n"), "{accept}");
        assert!(answer.text().contains("\n# TYPE tr50d_commands counter\n"), "{accept}");
    }
}

/// promtool reads the text format, the library of Prometheus for Python OpenMetrics, strictly.
#[tokio::test]
async fn outside_readers_find_nothing_wrong_with_either_form() {
    if !wanted() {
        return;
    }
    let server = busy().await;
    let check = |mut command: Command, text: &str| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("its end");
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(output.status.success() && words.is_empty(), "{command:?}: {words}");
    };
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    check(promtool, scrape(&server, "text/plain").await.text());
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/outside/bin/python");
    let mut library = Command::new(python);
    library.args([
        "-c",
        "import sys\nfrom prometheus_client.openmetrics.parser import \
         text_string_to_metric_families as families\nassert len(list(families(sys.stdin.read()))) > 50",
    ]);
    check(library, scrape(&server, PROMETHEUS).await.text());
}

/// Names and labels of all samples.
fn samples(page: &str) -> BTreeSet<String> {
    let (_, text) = page.split_once("\r\n\r\n").expect("a head");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("a sample").0.to_owned()).collect()
}

#[tokio::test]
async fn every_sample_is_there_from_the_start() {
    let (fresh, later) = (TestServer::start(), busy().await);
    let fresh = samples(&metrics(&fresh).await);
    let later = samples(&metrics(&later).await);
    assert_eq!(later.difference(&fresh).collect::<Vec<_>>(), Vec::<&String>::new());
    for name in [
        r#"tr50d_connections{protocol="wss"}"#,
        r#"tr50d_connections_refused_total{reason="full"}"#,
        r#"tr50d_sessions_ended_total{kind="user",reason="expired"}"#
            .replace("expired", "max_age")
            .as_str(),
        r#"tr50d_command_seconds_bucket{family="session",le="+Inf"}"#,
        r#"tr50d_store_bytes{table="telemetry"}"#,
        r#"tr50d_event_bytes{class="refusals"}"#,
        "tr50d_connections_limit",
        "process_open_fds",
        "process_max_fds",
    ] {
        assert!(fresh.contains(name), "{name}");
    }
}

#[tokio::test]
async fn a_command_is_timed_with_its_family() {
    let server = TestServer::start();
    let count = async |family: &str| {
        let start = format!("tr50d_command_seconds_count{{family=\"{family}\"}} ");
        let page = metrics(&server).await;
        let line = page.lines().find_map(|line| line.strip_prefix(&start)).expect("a family");
        line.parse::<u64>().expect("a number")
    };
    let mut thing = server.thing("mqtt", "mower-1").await;
    for _ in 0..3 {
        call(&mut thing, "property.publish", r#"{"key":"t","value":1}"#).await;
    }
    assert_eq!(count("property").await, 3, "all that waits for the store is timed");
    // Each in a millisecond of its own, or one of a few in it.
    call(&mut thing, "session.list", "{}").await;
    assert_eq!(count("session").await, 1);
    assert_eq!(count("thing").await, 0);
}

/// Every `expr` of the dashboard.
fn expressions() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana/tr50d.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let exprs = targets.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    exprs.collect()
}

/// The words of an expression that are names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tr50d_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn what_the_dashboard_and_the_alerts_name_is_there() {
    let server = TestServer::start();
    let page = metrics(&server).await;
    let samples = samples(&page);
    let names: BTreeSet<_> =
        samples.iter().map(|name| name.split_once('{').map_or(&**name, |(name, _)| name)).collect();
    let alerts = std::fs::read_to_string(rules()).expect("the alerts");
    let exprs = expressions();
    assert!(exprs.len() > 30);
    let text = exprs.join("\n") + &alerts;
    let wanted = named(&text);
    assert!(wanted.len() > 40, "{wanted:?}");
    for name in wanted {
        // The last is only there with a certificate.
        let known = names.contains(name)
            || names.contains(&*format!("{name}_bucket"))
            || name == "tr50d_tls_certificate_end_timestamp_seconds";
        assert!(known, "there is no {name}");
    }
}

#[test]
fn the_expressions_of_the_dashboard_are_well_formed() {
    if !wanted() {
        return;
    }
    let rule = |(number, expr): (usize, String)| {
        let expr = expr.replace("$__rate_interval", "5m").replace('$', "");
        json!({ "record": format!("panel:{number}"), "expr": expr })
    };
    let rules: Vec<_> = expressions().into_iter().enumerate().map(rule).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rules.yml");
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    std::fs::write(&path, groups.to_string()).expect("written");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules"]).arg(&path);
    let output = promtool.output().expect("promtool, which tests/run installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_last_seconds_are_shown_to_who_may_see_the_whole_server() {
    let server = TestServer::start();
    let admin = log_in(&server, "admin@devicewise.com", "demo-admin-password").await;
    let ask = async |session: &str, params: Value| -> Value {
        let body = json!({ "1": { "command": "stats.series", "params": params } });
        let headers = format!("sessionId: {session}\r\n");
        let answer = post_with(&server, &headers, &body.to_string()).await;
        serde_json::from_str::<Value>(&answer).expect("JSON")["1"].clone()
    };
    let mut thing = server.thing("mqtt", "mower-1").await;
    let sums = async || {
        call(&mut thing, "diag.ping", "{}").await;
        let shown = ask(&admin, json!({ "names": ["commands", "Sessions", "commandp99ms"] })).await;
        let series = &shown["params"]["series"];
        let of = |name: &str| series[name].as_array().expect(name).clone();
        let ts = shown["params"]["ts"].as_array().expect("times").len();
        assert!([of("commands"), of("sessions"), of("commandP99Ms")].iter().all(|s| s.len() == ts));
        let positive = |values: Vec<Value>| values.iter().any(|v| v.as_f64() > Some(0.0));
        assert_eq!(series.as_object().expect("an object").len(), 3);
        positive(of("commands")) && positive(of("sessions")) && positive(of("commandP99Ms"))
    };
    eventually("a second has passed", sums).await;
    let all = ask(&admin, json!({})).await;
    assert_eq!(all["params"]["series"].as_object().expect("an object").len(), 22);
    eventually("three seconds have passed", async || {
        let shown = ask(&admin, json!({ "seconds": "2" })).await;
        shown["params"]["ts"].as_array().expect("times").len() == 2
    })
    .await;
    let newest = &all["params"]["ts"][0];
    let none = ask(&admin, json!({ "end": "2001-01-01T00:00:00Z" })).await;
    assert_eq!(none["params"]["ts"], json!([]));
    let since = ask(&admin, json!({ "start": newest, "names": ["mails"], "last": "1h" })).await;
    assert_eq!(since["params"]["ts"][0], *newest);
    for (wrong, code) in [
        (json!({ "names": ["colour"] }), -95005),
        (json!({ "seconds": 0 }), -95005),
        (json!({ "last": "soon" }), -95005),
    ] {
        assert_eq!(ask(&admin, wrong.clone()).await["errorCodes"][0], code, "{wrong}");
    }
    let operator = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let refused = ask(&operator, json!({})).await;
    assert_eq!(refused["errorCodes"], json!([-95006]), "{refused}");
}
