//! `tr50d call`: one command from a terminal.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use client::{Client, ClientError, Options, Target, Url, request_text};

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

A thing that is connected with the same client id loses its connection when `call` logs in as it.")]
pub struct CallArgs {
    /// The command, such as session.list
    command: String,
    /// Its parameters, a JSON text
    #[arg(value_name = "PARAMS-JSON")]
    params: Option<String>,
    /// The server and the login
    #[arg(long, value_name = "URL")]
    url: Url,
    /// Seconds to wait for the login, and then for the reply
    #[arg(long, value_name = "S", default_value = "30", value_parser = super::seconds)]
    timeout: Duration,
}

/// Runs `tr50d call`.
pub async fn run(args: CallArgs) -> ExitCode {
    match call(&args).await {
        Ok(reply) => {
            let written = writeln!(std::io::stdout(), "{}", reply.as_json());
            match (written, reply.success()) {
                (Err(_), _) => ExitCode::from(NOT_DONE),
                (Ok(()), true) => ExitCode::SUCCESS,
                (Ok(()), false) => ExitCode::from(FAILED),
            }
        }
        Err(error) => {
            eprintln!("tr50d call: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

async fn call(args: &CallArgs) -> Result<client::Reply, ClientError> {
    // Before connecting: a typing mistake needs no server to be found.
    request_text(&args.command, args.params.as_deref())?;
    let options = Options { timeout: args.timeout, ..Options::default() };
    let target = Target::resolve(&args.url).await?;
    let mut client = Client::connect_to(&target, &args.url, &options).await?;
    let reply = client.call(&args.command, args.params.as_deref()).await;
    client.close().await;
    reply
}
