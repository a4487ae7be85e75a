//! Sessions over HTTP, many of them, in many organisations.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use client::{Connection, HttpConnection, Incoming, Login, Options, Target, Url};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::process::Server;
use super::{Bench, Result};

/// Logins on their way at once, each on a connection of its own.
const LOGINS: usize = 32;

/// Connections over which sessions are used.
const LINES: usize = 4;

/// Requests on their way on each of them.
const LINES_WINDOW: usize = 200;

/// Organisations of the comparison.
pub(crate) const ORGS: usize = 200;

/// The token of an organisation's application.
pub(crate) fn token(org: usize) -> String {
    format!("compare-token-{org:08}")
}

/// Writes a bootstrap file with so many organisations, each with an application.
pub(crate) fn write_bootstrap(bench: &Bench, orgs: usize) -> Result<PathBuf> {
    let mut text = String::from(
        "[[org]]\nkey = \"ROOT\"\nslug = \"root-org\"\n\n[[role]]\nkey = \"device\"\norg = \"ROOT\"\n\
         permissions = [\"session\", \"thing.create\"]\n",
    );
    for org in 0..orgs {
        let token = token(org);
        write!(
            text,
            "\n[[org]]\nkey = \"ORG{org}\"\nslug = \"org-{org}\"\nparent = \"ROOT\"\n\n\
             [[application]]\nname = \"devices\"\norg = \"ORG{org}\"\ntoken = \"{token}\"\ntoken_name = \"devices\"\n\
             roles = [\"device\"]\nauto_register = true\n"
        )?;
    }
    let file = bench.folder()?.join("bootstrap.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Starts a server with such a file, and with more settings.
pub(crate) fn serve(bench: &Bench, bootstrap: &Path, settings: &[(&str, &str)]) -> Result<Server> {
    let bootstrap = bootstrap.to_string_lossy();
    let mut all =
        vec![("TR50D_SERVER__BOOTSTRAP", &*bootstrap), ("TR50D_LIMITS__SESSIONS", "2000000")];
    all.extend_from_slice(settings);
    Server::ours(bench, &bench.folder()?, &all)
}

/// Logs things in, one with each token and key, and returns the ids of their sessions.
pub(crate) async fn log_in(
    server: &Server,
    logins: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<String>> {
    let url: Url = format!("http://{}", server.address("http")?).parse()?;
    let target = Target::resolve(&url).await?;
    let logins: Vec<_> = logins.into_iter().map(|(token, key)| login(&token, &key)).collect();
    let mut working = JoinSet::new();
    for part in logins.chunks(logins.len().div_ceil(LOGINS).max(1)) {
        let (target, url, part) = (target.clone(), url.clone(), part.to_vec());
        working.spawn(async move {
            log_in_part(&target, &url, part).await.map_err(|error| error.to_string())
        });
    }
    let mut ids = Vec::with_capacity(logins.len());
    while let Some(part) = working.join_next().await {
        ids.extend(part??);
    }
    Ok(ids)
}

async fn log_in_part(target: &Target, url: &Url, logins: Vec<Bytes>) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Answer {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        session_id: String,
    }
    let url = Url { login: Login::None, ..url.clone() };
    let mut http = HttpConnection::open(target, &url, &Options::default()).await?;
    let mut ids = Vec::with_capacity(logins.len());
    for login in logins {
        let answer = http.post(login).await?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| format!("a login failed: {}", String::from_utf8_lossy(&answer)))?;
        ids.push(answer.auth.params.session_id);
    }
    Ok(ids)
}

fn login(token: &str, key: &str) -> Bytes {
    let params = format!(r#"{{"appId":"compare","appToken":"{token}","thingKey":"{key}"}}"#);
    format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#).into()
}

/// Uses each of the sessions once, over TCP.
pub(crate) async fn touch(server: &Server, ids: &[String]) -> Result<()> {
    let url: Url = format!("tcp://{}", server.address("tcp")?).parse()?;
    let target = Target::resolve(&url).await?;
    let mut working = JoinSet::new();
    for part in ids.chunks(ids.len().div_ceil(LINES).max(1)) {
        let (target, url, part) = (target.clone(), url.clone(), part.to_vec());
        working.spawn(async move {
            touch_part(&target, &url, &part).await.map_err(|error| error.to_string())
        });
    }
    while let Some(part) = working.join_next().await {
        part??;
    }
    Ok(())
}

async fn touch_part(target: &Target, url: &Url, ids: &[String]) -> Result<()> {
    let mut connection = Connection::open(target, url, &Options::default()).await?;
    let (mut sent, mut answered) = (0, 0);
    while answered < ids.len() {
        for id in ids.iter().skip(sent).take(LINES_WINDOW - (sent - answered)) {
            let request =
                format!(r#"{{"auth":{{"sessionId":"{id}"}},"cmd":{{"command":"diag.ping"}}}}"#);
            connection.queue(0, request.as_bytes())?;
            sent += 1;
        }
        connection.exchange().await?;
        while let Some(incoming) = connection.next_incoming()? {
            if let Incoming::Reply { text, .. } = incoming {
                let text = String::from_utf8_lossy(text);
                if !text.contains(r#""success":true"#) {
                    return Err(format!("a session could not be used: {text}").into());
                }
                answered += 1;
            }
        }
    }
    Ok(())
}
