//! Many sessions that fall due in the same second: what other clients notice of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::cores::Pinning;
use super::pings::Pings;
use super::process::Server;
use super::sessions::{self, ORGS, log_in, token, touch};
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// From the last use until a server looks whether sessions are due: a second more than they last.
const SLACK: Duration = Duration::from_secs(2);

/// Time for all of them to end, once they are due.
const PATIENCE: Duration = Duration::from_secs(60);

/// The row, measured once.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let count = bench.sessions;
    let place = match bench.pinning {
        Pinning::Apart => "server and store on one core",
        Pinning::Shared => "not pinned",
    };
    let what = format!(
        "p99 of diag.ping while {} sessions expire at once, {place}",
        thousands(count as f64)
    );
    let mut row = Row::new(what, Unit::Millis, Goal::AtMost(5.0));
    row.ours.push(measure(bench, count).await?);
    Ok(vec![row])
}

async fn measure(bench: &Bench, count: usize) -> Result<Figure> {
    let bootstrap = sessions::write_bootstrap(bench, ORGS)?;
    let ttl_s = bench.ttl.as_secs().to_string();
    let server = sessions::serve(bench, &bootstrap, &[("TR50D_SESSIONS__TTL_S", &ttl_s)])?;
    let begin = Instant::now();
    let login = |number: usize| (token(number % ORGS), format!("thing-{number}"));
    let ids = log_in(&server, (0..count).map(login)).await?;
    let login_s = begin.elapsed().as_secs_f64();
    let touched = Instant::now();
    // Sessions that ended already would spoil it; touching them fails.
    touch(&server, &ids).await.map_err(|error| {
        format!("logins took {login_s:.0} s of the {ttl_s} s that sessions last: {error}")
    })?;
    let touch_s = touched.elapsed().as_secs_f64();
    let (quiet, pings) = (Instant::now(), Pings::start(&server, &token(0)).await?);
    let (from, until) = ending(&server, count, touched + bench.ttl).await?;
    let pinged = pings.stop().await?;
    let p99_ms = |from, until| pinged.p99_ms(from, until).ok_or("no diag.ping in the span");
    // The logins' last writes to the store are over after the first second.
    let before = p99_ms(quiet + Duration::from_secs(1), from)?;
    let took_s = (until - from).as_secs_f64();
    let beside = format!(
        "{before:.2} ms just before; used within {touch_s:.1} s, all ended in {took_s:.1} s"
    );
    Ok(Figure { value: p99_ms(from, until)?, beside })
}

/// The span in which so many sessions expire: from when none had to when all have.
async fn ending(server: &Server, count: usize, due: Instant) -> Result<(Instant, Instant)> {
    let mut none_until = Instant::now();
    loop {
        let asked = Instant::now();
        let expired = expired(server).await?;
        if expired == 0 {
            none_until = asked;
        } else if expired >= count as u64 {
            return Ok((none_until, Instant::now()));
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() && due.elapsed() > SLACK + PATIENCE {
            return Err(format!("{expired} of {count} sessions have expired").into());
        }
        // Seldom at first: what is asked is work for the server too.
        sleep((left / 2).max(Duration::from_millis(20))).await;
    }
}

/// How many sessions have expired, by the server's own count.
async fn expired(server: &Server) -> Result<u64> {
    let mut stream = TcpStream::connect(server.address("http")?).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let ended = text.lines().filter(|line| {
        line.starts_with("tr50d_sessions_ended_total{") && line.contains(r#"reason="idle""#)
    });
    Ok(ended.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}
