//! What filters, orders, groups and searches cost in an organisation with many sessions and things,
//! beside the newest page: all of them asked by one client, so that nobody shares an answer.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base::Timestamp;
use client::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::process::Server;
use super::round_trips::Ask;
use super::sessions::{self, log_in, touch};
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// The token of half of the things.
const DEVICES: &str = "questions-token-devices";

/// The token of the others, which have a definition.
const MOWERS: &str = "questions-token-mowers";

/// The token of who asks and administers.
const DESK: &str = "questions-token-desk";

/// What one array answers, in terms of the newest page.
const TIMES_PAGE: f64 = 12.0;

/// CPU of a search, in milliseconds.
const SEARCH_MS: f64 = 20.0;

/// Sessions that one command ends; it is answered when they are gone.
const ENDED_AT_ONCE: usize = 10;

/// In which the server has to come to rest.
const SETTLING: Duration = Duration::from_secs(120);

/// A question, and what it is to cost.
struct Question {
    what: String,
    command: &'static str,
    params: String,
    beside: Beside,
}

/// What a question is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// The newest page of sessions, with the goal or without it: what is answered apart from
    /// connections.
    Page(bool),
    /// A page of the sessions that ended in the hour.
    Ended,
    /// The first page of things.
    Things,
    /// Nothing: the CPU itself is to be small.
    Search,
}

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let server = sessions::serve(
        bench,
        &write_bootstrap(bench)?,
        &[
            ("TR50D_LIMITS__SESSIONS_PER_PRINCIPAL", "1000000"),
            ("TR50D_SESSIONS__HISTORY_MAX", "1000000"),
        ],
    )?;
    let mut desk = Client::connect(&server.url_of("mqtt", "desk", DESK)?).await?;
    let middle = fill(bench, &server, &mut desk).await?;
    desk.close().await;
    settle(&server).await?;
    let questions = questions(bench, &middle);
    let mut rows: Vec<_> = questions.iter().map(Question::row).collect();
    for _ in 0..bench.rounds {
        let mut besides = [Beside::Page(true), Beside::Ended, Beside::Things].map(|b| (b, 0.0));
        for (beside, cpu_us) in &mut besides {
            *cpu_us = ask(bench, &server, &beside.question(&middle)).await?;
        }
        for (question, row) in questions.iter().zip(&mut rows) {
            let cpu_us = ask(bench, &server, question).await?;
            let is_beside = |(beside, _): &&(Beside, f64)| {
                std::mem::discriminant(beside) == std::mem::discriminant(&question.beside)
            };
            row.ours.push(match besides.iter().find(is_beside) {
                None => (cpu_us / 1000.0).into(),
                Some((_, of_page)) => {
                    let beside = format!("{cpu_us:.0} µs; {of_page:.0} µs");
                    Figure { value: cpu_us / of_page, beside }
                }
            });
        }
    }
    server.stop().await?;
    Ok(rows)
}

fn write_bootstrap(bench: &Bench) -> Result<PathBuf> {
    let mut text = String::from(
        "[[org]]\nkey = \"ROOT\"\nslug = \"root-org\"\n\n[[role]]\nkey = \"device\"\norg = \"ROOT\"\n\
         permissions = [\"session\", \"thing.create\"]\n",
    );
    for (name, token, more) in [
        ("devices", DEVICES, "roles = [\"device\"]\nauto_register = true\n"),
        ("desk", DESK, "auto_register = true\norg_admin = true\n"),
    ] {
        write!(
            text,
            "\n[[application]]\nname = \"{name}\"\norg = \"ROOT\"\ntoken = \"{token}\"\n\
             token_name = \"{name}\"\n{more}"
        )?;
    }
    let file = bench.folder()?.join("bootstrap.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// So many sessions that ended and as many that live, each of a thing of its own; a time between
/// the ends.
async fn fill(bench: &Bench, server: &Server, desk: &mut Client) -> Result<String> {
    call(desk, "thing_def.create", r#"{"key":"mower","name":"mower"}"#).await?;
    let mowers = format!(
        r#"{{"name":"mowers","token":"{MOWERS}","autoRegister":true,"autoRegThingDefId":"mower","roles":["device"]}}"#
    );
    call(desk, "app.create", &mowers).await?;
    let token = |number: usize| [DEVICES, MOWERS][number % 2].to_owned();
    let login =
        |name: &'static str| move |number: usize| (token(number), format!("{name}-{number:06}"));
    log_in(server, (0..bench.sessions).map(login("gone"))).await?;
    let mut ids = log_in(server, (0..bench.sessions).map(login("thing"))).await?;
    let mut middle = String::new();
    for part in 0..ENDED_AT_ONCE {
        let params = format!(r#"{{"whoAmI":"gone-*{part}"}}"#);
        call(desk, "session.end", &params).await?;
        if part == ENDED_AT_ONCE / 2 {
            let time: Value = serde_json::from_str(&call(desk, "diag.time", "{}").await?)?;
            let time = time["params"]["time"].as_i64().ok_or("no time")?;
            middle = Timestamp::from_millis(time).to_string();
        }
    }
    // Used in another order than that in which they began.
    let half = ids.split_off(ids.len() / 2);
    let mixed: Vec<_> = half.into_iter().zip(ids).flat_map(|(a, b)| [a, b]).collect();
    touch(server, &mixed).await?;
    Ok(middle)
}

async fn call(client: &mut Client, command: &str, params: &str) -> Result<String> {
    let reply = client.call(command, Some(params)).await?;
    let text = reply.as_json().to_string();
    if !text.contains(r#""success":true"#) {
        return Err(format!("{command} {params}: {text}").into());
    }
    Ok(text)
}

/// Waits until the server does nothing: what was stored is merged behind it.
async fn settle(server: &Server) -> Result<()> {
    const QUIET: Duration = Duration::from_millis(500);
    let begun = Instant::now();
    loop {
        let before = server.cpu()?;
        sleep(QUIET).await;
        if server.cpu()? - before < QUIET / 20 {
            return Ok(());
        }
        if begun.elapsed() > SETTLING {
            return Err("the server does not come to rest".into());
        }
    }
}

/// CPU of the whole server for one answer, in microseconds.
async fn ask(bench: &Bench, server: &Server, question: &Question) -> Result<f64> {
    let params = Some(question.params.clone());
    let ask = Ask { command: question.command, params, clients: 1, ..Ask::new("mqtt", 1) };
    let asked = ask.run(bench, server, DESK).await?;
    Ok(asked.cpu_us().value)
}

impl Beside {
    fn question(self, middle: &str) -> Question {
        let (command, params) = match self {
            Self::Page(_) | Self::Search => ("session.list", r#"{"limit":50}"#.to_owned()),
            Self::Ended => ("session.list", of_hour(middle)),
            Self::Things => ("thing.list", r#"{"limit":50}"#.to_owned()),
        };
        Question { what: String::new(), command, params, beside: self }
    }
}

/// The ends since a time: those of the hour, for all ended in less.
fn of_hour(middle: &str) -> String {
    format!(r#"{{"limit":50,"endedAfter":"{middle}"}}"#)
}

impl Question {
    fn row(&self) -> Row {
        let (unit, goal) = match self.beside {
            Beside::Page(true) => (Unit::Times, Goal::AtMost(TIMES_PAGE)),
            Beside::Ended => (Unit::Times, Goal::AtMost(1.0)),
            Beside::Page(false) | Beside::Things => (Unit::Times, Goal::None),
            Beside::Search => (Unit::Millis, Goal::AtMost(SEARCH_MS)),
        };
        Row::new(self.what.clone(), unit, goal)
    }
}

fn questions(bench: &Bench, middle: &str) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut add = |command: &'static str, beside: Beside, asked: &str| {
        let what = format!("{command} {{{}}}", asked.replace('"', ""));
        let params = match command {
            "search.omni" => format!("{{{asked}}}"),
            _ => format!(r#"{{"limit":50,{asked}}}"#),
        };
        questions.push(Question { what, command, params, beside });
    };
    for asked in [
        r#""kind":"application""#,
        r#""protocol":"http""#,
        r#""protocol":"mqtt""#,
        r#""appName":"mowers""#,
        r#""appId":"compare""#,
        r#""appId":"nobody""#,
        r#""defKey":"mower""#,
        r#""connected":false"#,
        r#""connected":true"#,
        r#""endReason":"revoked""#,
        r#""endReason":"keep_alive""#,
        r#""prefix":"thing-""#,
        r#""prefix":"thing-00""#,
        r#""remoteAddr":"127.0.0.1:4""#,
        r#""idleLongerThan":1"#,
        r#""lastSeenAfter":"2020-01-01T00:00:00.000Z""#,
        r#""lastSeenBefore":"2020-01-01T00:00:00.000Z""#,
        r#""sort":"startTime""#,
        r#""sort":"-endTime","show":["ended"]"#,
        r#""sort":"endTime","show":["ended"]"#,
        r#""sort":"lastAccessed""#,
        r#""sort":"-lastAccessed""#,
        r#""sort":"-lastSeen""#,
        r#""sort":"-commandCount""#,
        r#""sort":"whoAmI""#,
        r#""sort":"-whoAmI""#,
        r#""groupBy":"protocol""#,
        r#""groupBy":"application""#,
        r#""groupBy":"definition""#,
    ] {
        add("session.list", Beside::Page(true), asked);
    }
    for asked in [
        r#""whoAmI":"*777*""#,
        r#""query":"thing 77""#,
        r#""protocol":"http","query":"777""#,
        r#""kind":"application","defKey":"mower","sort":"-lastAccessed","idleLongerThan":1"#,
        r#""show":["all"],"sort":"-lastAccessed""#,
    ] {
        add("session.list", Beside::Page(false), asked);
    }
    let as_of = format!(r#""asOf":"{middle}""#);
    for asked in [as_of.clone(), format!(r#"{as_of},"sort":"-endTime""#)] {
        add("session.list", Beside::Ended, &asked);
    }
    for asked in [
        r#""prefix":"thing-00""#,
        r#""whoAmI":"thing-0*77""#,
        r#""connected":true"#,
        r#""connected":false"#,
        r#""protocol":"http""#,
        r#""defKey":"mower""#,
        r#""appId":"compare""#,
        r#""remoteAddr":"127.0.0.1:4""#,
        r#""idleLongerThan":1"#,
        r#""endReason":"revoked""#,
        r#""groupBy":"protocol""#,
        r#""sort":"-lastSeen""#,
    ] {
        add("thing.list", Beside::Things, asked);
    }
    for query in ["nowhere", "thing-077777", "thing", "777", "thing 77 0", "t*7*77"] {
        add("search.omni", Beside::Search, &format!(r#""query":"{query}""#));
    }
    let of = format!(" (of {} that live and as many that ended)", thousands(bench.sessions as f64));
    if let Some(first) = questions.first_mut() {
        first.what.push_str(&of);
    }
    questions
}
