//! A device: it logs in with its key and its application's token, publishes a property, and carries
//! out the methods that it is sent, until Ctrl-C.
//!
//! With `tr50d serve --demo` running:
//!
//! ```sh
//! cargo run --example device -- mqtt://mower-1:demo-token-basicorg@127.0.0.1
//! ```
//!
//! and, in another terminal:
//!
//! ```sh
//! cargo run -- call method.exec '{"thingKey":"mower-1","method":"mow","params":{"field":3}}' \
//!     --url tcp://operator@basicorg.example:demo-operator-password@127.0.0.1
//! ```

use client::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};

/// Errors of the client, and replies of another form than the one that was expected.
type Error = Box<dyn std::error::Error>;

/// What `mailbox.check` answers (docs/commands.md), as far as it is of interest here.
#[derive(Deserialize)]
struct Mailbox {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    /// `method.exec`, or whatever `mailbox.send` was given.
    command: String,
    #[serde(default)]
    params: Value,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url: Url = std::env::args().nth(1).ok_or("usage: device URL")?.parse()?;
    let mut client = Client::connect(&url).await?;
    tokio::select! {
        ended = run(&mut client) => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    client.close().await;
    Ok(())
}

/// Publishes a property and then works for those who send mail, until the connection ends.
pub(crate) async fn run(client: &mut Client) -> Result<(), Error> {
    call(client, "property.publish", json!({"key": "battery", "value": 87})).await?;
    loop {
        // Mail of the time before this connection is there already.
        while work(client).await? {}
        client.mail_waits().await?;
    }
}

/// Fetches the mail that waits and answers it. Whether there was any.
async fn work(client: &mut Client) -> Result<bool, Error> {
    let fetched = call(client, "mailbox.check", json!({})).await?;
    let Mailbox { messages } = serde_json::from_value(fetched)?;
    for Message { id, command, params } in &messages {
        let answer = match (command.as_str(), params["method"].as_str()) {
            ("method.exec", Some("mow")) => {
                json!({"id": id, "params": {"mown": params["params"]["field"]}})
            }
            _ => json!({"id": id, "errorCode": 1, "errorMessage": "I can only mow"}),
        };
        call(client, "mailbox.ack", answer).await?;
    }
    Ok(!messages.is_empty())
}

/// The `params` of the reply to a command; an error if the command failed.
async fn call(client: &mut Client, command: &str, params: Value) -> Result<Value, Error> {
    let reply = client.call(command, Some(&params.to_string())).await?;
    Ok(reply.succeeded()?.params()?)
}
