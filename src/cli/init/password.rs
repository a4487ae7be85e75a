//! The administrator's password: from a terminal, where it does not show, or from a pipe.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;

use base::limits::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often somebody at a terminal may try to say the same password twice.
const ATTEMPTS_MAX: usize = 3;

/// The password that somebody chose for the user with this e-mail address; none if one has to be
/// made.
///
/// # Errors
/// It is too weak, or can't be read, in one sentence.
pub(super) async fn choose(from_stdin: bool, email: &str) -> Result<Option<String>, String> {
    // From here on: Ctrl-C must neither leave a terminal without an echo nor anything half made.
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| format!("can't wait for signals: {error}"))?;
    if from_stdin {
        let password =
            read_line(&mut interrupt).await?.ok_or("there is no password on standard input")?;
        check(&password, email)?;
        return Ok(Some(password));
    }
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    for _ in 0..ATTEMPTS_MAX {
        let prompt = format!("Password for {email} (empty: one is made): ");
        let Some(password) =
            ask(&prompt, &mut interrupt).await?.filter(|password| !password.is_empty())
        else {
            return Ok(None);
        };
        let again = match check(&password, email) {
            Ok(()) => ask("The same again: ", &mut interrupt).await?,
            Err(weak) => {
                eprintln!("{weak}");
                continue;
            }
        };
        if again.as_ref() == Some(&password) {
            return Ok(Some(password));
        }
        eprintln!("the two passwords are not the same");
    }
    Err(format!("no password in {ATTEMPTS_MAX} attempts; nothing was made"))
}

/// The rules for a password that somebody chose. Length is what counts (NIST SP 800-63B, 5.1.1.1);
/// one that is on the screen beside it is none.
fn check(password: &str, email: &str) -> Result<(), String> {
    let local = email.split_once('@').map_or(email, |(local, _)| local);
    if password.len() < PASSWORD_BYTES_MIN {
        return Err(format!(
            "the password is too weak: it has less than {PASSWORD_BYTES_MIN} bytes"
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "the password is too long: it has more than {PASSWORD_BYTES_MAX} bytes"
        ));
    }
    if [email, local].iter().any(|name| password.eq_ignore_ascii_case(name)) {
        return Err("the password is too weak: it is the e-mail address".to_owned());
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) {
        return Err("the password is too weak: it is one character again and again".to_owned());
    }
    Ok(())
}

/// Asks at the terminal; none at its end.
async fn ask(prompt: &str, interrupt: &mut Signal) -> Result<Option<String>, String> {
    // Before the prompt: whoever sees it may type at once.
    let hidden = Hidden::start().map_err(|error| format!("can't hide the password: {error}"))?;
    eprint!("{prompt}");
    let line = read_line(interrupt).await;
    drop(hidden);
    // The line's end did not show either.
    eprintln!();
    line
}

/// The next line of standard input without its end; none if there is none. Ctrl-C ends the wait.
async fn read_line(interrupt: &mut Signal) -> Result<Option<String>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        // One byte over the bound shows that it is over; the line's end is up to two.
        let most = PASSWORD_BYTES_MAX as u64 + 3;
        io::stdin().lock().take(most).read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        read = read => read.map_err(io::Error::other).and_then(|read| read),
        _ = interrupt.recv() => return Err("interrupted; nothing was made".to_owned()),
    };
    let mut line = line.map_err(|error| format!("can't read the password: {error}"))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.ends_with('\n') {
        line.pop();
        if line.ends_with('\r') {
            line.pop();
        }
    }
    Ok(Some(line))
}

/// While this lives, the terminal does not show what is typed.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn start() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_named_so() {
        let said = |password: &str| check(password, "somebody@example.org").err();
        let check = |password: &str, word: &str| {
            assert!(said(password).is_some_and(|why| why.contains(word)), "{password}");
        };
        check("1234567", "less than 8 bytes");
        check("", "less than 8 bytes");
        check(&"x1".repeat(513), "more than 1024 bytes");
        check("Somebody", "the e-mail address");
        check("somebody@example.org", "the e-mail address");
        check("xxxxxxxx", "again and again");
        assert_eq!(said("correct horse"), None);
        assert_eq!(said("fünf äöü"), None);
    }
}
