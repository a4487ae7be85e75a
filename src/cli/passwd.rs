//! `tr50d passwd` and `tr50d unlock`: for who has lost a password, or is locked out.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use client::{Reply, request_text};
use data_encoding::BASE32_NOPAD;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use crate::config::Config;
use crate::control;
use crate::random::random;

/// Sets the password of a user, without the old one.
///
/// It asks for the new one twice on a terminal, and reads a line from standard input otherwise. The
/// user's sessions end, and a lock after failed logins is opened. The server has to run on this machine.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Whoever may read the server's data directory may do this, as may root; nobody else.

  tr50d passwd admin@example.com --config tr50d.toml
  tr50d passwd admin@example.com --config tr50d.toml --generate
  tr50d passwd new-admin@example.com --config tr50d.toml --create --generate")]
pub struct PasswdArgs {
    /// The user's e-mail address
    email: String,
    /// Configuration file of the server
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Make a password and print it
    #[arg(long)]
    generate: bool,
    /// Make the user, as a super administrator
    #[arg(long)]
    create: bool,
}

/// Opens a lock that failed logins have set.
///
/// Of a user at all addresses, or of all who come from an address (IPv6: from its /64), wrong tokens,
/// too. The server has to run on this machine.
#[derive(Args, Debug)]
pub struct UnlockArgs {
    /// An e-mail address, or an IP address
    #[arg(value_name = "NAME|ADDRESS")]
    name: String,
    /// Configuration file of the server
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs `tr50d passwd`.
///
/// # Errors
/// Why the password is as before, in one sentence.
pub fn set_password(args: &PasswdArgs, config: &Config) -> Result<(), String> {
    let data_dir = &config.server.data_dir;
    let password = if args.generate { generated()? } else { asked()? };
    let (email, create) = (&args.email, args.create);
    let (command, params) = match create {
        true => (
            "user.create",
            json!({"emailAddress": email, "password": password, "isSuperAdmin": true}),
        ),
        false => ("user.update", json!({"emailAddress": email, "password": password})),
    };
    let request = request_text(command, Some(&params.to_string()));
    let request = request.map_err(|error| error.to_string())?;
    let reply = control::ask_for_call(data_dir, None, &request)?;
    let reply = Reply::of_command(reply.as_bytes()).and_then(Reply::succeeded);
    reply.map_err(|error| error.to_string())?;
    control::ask_to_unlock(data_dir, email)?;
    let written = match (args.generate, create) {
        (true, _) => writeln!(io::stdout(), "{password}"),
        (false, true) => writeln!(io::stdout(), "{email} is a super administrator now"),
        (false, false) => writeln!(io::stdout(), "{email} has a new password"),
    };
    written.map_err(|error| format!("can't write: {error}"))
}

/// Runs `tr50d unlock`.
///
/// # Errors
/// Why nothing was opened, in one sentence.
pub fn unlock(args: &UnlockArgs, config: &Config) -> Result<(), String> {
    let locks = control::ask_to_unlock(&config.server.data_dir, &args.name)?;
    let written = match locks {
        0 => writeln!(io::stdout(), "{} was not locked", args.name),
        _ => writeln!(io::stdout(), "{} is not locked any more", args.name),
    };
    written.map_err(|error| format!("can't write: {error}"))
}

/// A new password: 24 letters and digits.
fn generated() -> Result<String, String> {
    let bytes: [u8; 15] = random().map_err(|error| error.to_string())?;
    Ok(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn asked() -> Result<String, String> {
    let failed = |error: io::Error| format!("can't read the password: {error}");
    if !io::stdin().is_terminal() {
        return line().map_err(failed);
    }
    let first = hidden("New password: ").map_err(failed)?;
    let second = hidden("The same again: ").map_err(failed)?;
    if first == second { Ok(first) } else { Err("these are two different passwords".to_owned()) }
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A line that the terminal does not show.
fn hidden(prompt: &str) -> io::Result<String> {
    let mut err = io::stderr();
    write!(err, "{prompt}")?;
    err.flush()?;
    let shown = tcgetattr(io::stdin())?;
    let mut modes = shown.clone();
    modes.local_modes &= !LocalModes::ECHO;
    tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
    let read = line();
    tcsetattr(io::stdin(), OptionalActions::Now, &shown)?;
    writeln!(err)?;
    read
}
