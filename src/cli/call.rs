//! `tr50d call`: one command from a terminal.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use client::{Client, ClientError, Options, Reply, Target, Url, request_text};

use crate::config::Config;
use crate::control;

/// The command ran, and the server said no.
const FAILED: u8 = 1;

/// The command could not be sent, or was not answered.
const NOT_DONE: u8 = 2;

/// Sends one TR50 command and prints the reply.
///
/// Prints the command's object as one line of JSON. The exit status is 0 if it says success, 1 if
/// it does not, 2 if there was no reply.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The URL is SCHEME://USER:PASSWORD@HOST:PORT/?OPTIONS. USER is an e-mail address (a user; '@' may be
written %40), or a thing key whose PASSWORD is an application token. What is special in either is
percent-encoded, such as %3F for '?'. Without PORT: mqtt 1883, mqtts 8883, tcp 5050, tcps 5051,
http and ws 8080, https and wss 8443. OPTIONS, joined by '&':
  app_id=TEXT         application id of a thing's login, also its MQTT client id [tr50d]
  client_id=TEXT      MQTT client id, if it is to be another
  version=3.1|3.1.1|5 version of MQTT [3.1.1]
  ca=FILE             PEM file with the server's certificate, or with those of its issuers
                      [whom the system trusts; SSL_CERT_FILE and SSL_CERT_DIR say otherwise]
  insecure=true       do not check the server's certificate

Examples, with the logins of `tr50d serve --demo`:
  tr50d call diag.ping --url tcp://mower-1:demo-token-basicorg@127.0.0.1
  tr50d call session.list --url mqtt://operator%40basicorg.example:demo-operator-password@127.0.0.1
  tr50d call thing.find '{\"key\":\"mower-1\"}' \\
      --url http://operator@basicorg.example:demo-operator-password@127.0.0.1:8080

On the server's machine, for who may read its data directory (nobody else):
  tr50d call session.list --config tr50d.toml --org BasicOrg

A thing that is connected with the same client id loses its connection when `call` logs in as it.")]
pub struct CallArgs {
    /// The command, such as session.list
    command: String,
    /// Its parameters, a JSON text
    #[arg(value_name = "PARAMS-JSON")]
    params: Option<String>,
    /// The server and the login
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    url: Option<Url>,
    /// Instead: the configuration of a server on this machine, which is asked without a login, as a
    /// super administrator, even when it is full
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// With --config: the key of the organisation in which the command runs
    #[arg(long, value_name = "KEY", requires = "config")]
    org: Option<String>,
    /// Seconds to wait for the login, and then for the reply
    #[arg(long, value_name = "S", default_value = "30", value_parser = super::seconds)]
    timeout: Duration,
}

/// Runs `tr50d call`.
pub async fn run(args: CallArgs) -> ExitCode {
    match call(&args).await {
        Ok(reply) => print(&reply),
        Err(error) => {
            eprintln!("tr50d call: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

/// Runs `tr50d call` without a login, by the control socket of the server that this configuration is
/// of.
pub fn run_on_machine(args: &CallArgs, config: &Config) -> ExitCode {
    let called = request_text(&args.command, args.params.as_deref())
        .map_err(|error| error.to_string())
        .and_then(|request| {
            let data_dir = &config.server.data_dir;
            let reply = control::ask_for_call(data_dir, args.org.as_deref(), &request)?;
            Reply::of_command(reply.as_bytes()).map_err(|error| error.to_string())
        });
    match called {
        Ok(reply) => print(&reply),
        Err(error) => {
            eprintln!("tr50d call: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

fn print(reply: &Reply) -> ExitCode {
    let written = writeln!(std::io::stdout(), "{}", reply.as_json());
    match (written, reply.success()) {
        (Err(_), _) => ExitCode::from(NOT_DONE),
        (Ok(()), true) => ExitCode::SUCCESS,
        (Ok(()), false) => ExitCode::from(FAILED),
    }
}

async fn call(args: &CallArgs) -> Result<Reply, ClientError> {
    // Without one, there is a configuration, and this is not asked.
    let Some(url) = &args.url else { return Err(ClientError::Closed) };
    // Before connecting: a typing mistake needs no server to be found.
    request_text(&args.command, args.params.as_deref())?;
    let options = Options { timeout: args.timeout, ..Options::default() };
    let target = Target::resolve(url).await?;
    let mut client = Client::connect_to(&target, url, &options).await?;
    let reply = client.call(&args.command, args.params.as_deref()).await;
    client.close().await;
    reply
}
