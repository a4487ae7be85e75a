//! Failures of commands: a code and a sentence for the caller.
//!
//! Codes that a public source names are the cloud's own; all others are this server's, from −95000
//! down, where no source shows a code of the cloud. `docs/errors.md` is made from [`CODES`].

use std::borrow::Cow;

/// A TR50 error code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub i32);

/// One row of the table of codes.
#[derive(Debug)]
pub struct CodeInfo {
    /// The number on the wire.
    pub code: Code,
    /// What it says.
    pub meaning: &'static str,
    /// What a client should do about it.
    pub advice: &'static str,
    /// Where the number comes from.
    pub source: &'static str,
    /// The status over HTTP, for those who ask for one.
    pub http_status: u16,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $status:literal, $meaning:literal, $advice:literal, $source:literal;)*) => {
        impl Code {
            $($(#[$doc])* #[doc = $meaning] pub const $name: Self = Self($number);)*
        }

        /// Every code that this server sends.
        pub const CODES: &[CodeInfo] = &[
            $(CodeInfo {
                code: Code::$name,
                meaning: $meaning,
                advice: $advice,
                source: $source,
                http_status: $status,
            },)*
        ];
    };
}

codes! {
    SESSION_INVALID = -90000 => 401, "The session is unknown, has ended or has expired.",
        "Log in again.", "`docs/protocol/tr50.md` 2.1 (client code PX), text: 0, fact 21";
    NOT_FOUND = -90008 => 404, "The object that the command names does not exist here.",
        "Check the name; nothing was changed.", "`docs/protocol/tr50.md` 2.1 (client code PY)";
    SECOND_FACTOR_WANTED = -90041 => 401, "User name and password are right, and the user has a second factor.",
        "Log in again within two minutes, from the same address or over the same TCP connection, with the code as the password.",
        "`docs/protocol/tr50.md` 2.1 (documentation and client code)";
    END_OF_RESULTS = -90058 => 404, "A listing with an iterator has no more to show.",
        "Stop; all was shown.", "`docs/protocol/tr50.md` 2.1 (documentation of thing.list)";
    ATTRIBUTE_MISSING = -91006 => 404, "The attribute has no value on that thing.",
        "Use a default of your own, or set it.", "`docs/protocol/tr50.md` 2.1 (client code TH)";
    AUTHENTICATION_MISSING = -99999 => 401, "The request carries no authentication.",
        "Send `auth` or the `sessionId` header.", "`docs/protocol/tr50.md` 2.1 (IP-Symcon module)";
    MALFORMED = -95001 => 400, "The request is not a TR50 request in JSON.",
        "Mend the request; nothing of it was executed.", "ours";
    TOO_LARGE = -95002 => 413, "The request is larger than `limits.max_frame_bytes`, or has too many commands.",
        "Send smaller requests.", "ours";
    UNKNOWN_COMMAND = -95003 => 404, "There is no such command.",
        "See docs/commands.md.", "ours";
    PARAMETER_MISSING = -95004 => 400, "A required parameter is missing.",
        "The message names it.", "ours";
    PARAMETER_INVALID = -95005 => 400, "A parameter has the wrong type or an impossible value.",
        "The message names it and says what was expected.", "ours";
    PERMISSION_DENIED = -95006 => 403, "The session may not do this.",
        "Ask an administrator for the permission that the message names.", "ours";
    LOGIN_REFUSED = -95007 => 401, "User name, password, thing key or token are not right.",
        "Check the credentials. The server never says which part was wrong.", "ours";
    LOGIN_LOCKED = -95008 => 429, "Too many failed logins for this user from this address.",
        "Wait as long as the message says.", "ours";
    WRONG_SESSION_KIND = -95009 => 403, "The command is for users, or for applications, and the session is the other.",
        "Log in the other way.", "ours";
    RATE_LIMITED = -95010 => 429, "The session sent more than `limits.commands_per_s` commands in a second, all sessions of its login more than `limits.principal_commands_per_s`, or all in its organisation more than `limits.org_commands_per_s`; a user or thing logged in more often than `limits.logins_per_s` allows; or somebody asked for too many names that are taken elsewhere.",
        "Send again later; this command was not executed.",
        "ours (limit: `docs/protocol/tr50.md` 1.1, \"rate\")";
    BUSY = -95011 => 503, "The server has too much to do for this command right now, or is full.",
        "Send again later; this command was not executed.", "ours";
    INTERNAL = -95012 => 500, "The server failed.",
        "Look into the server's log.", "ours";
    REPLY_TOO_LARGE = -95013 => 413, "The reply is larger than the client said it accepts, or than one reply may be.",
        "Ask for fewer records, or with fewer commands in a request.", "ours (MQTT 5, 3.1.2.11.4)";
    NOT_CONFIGURED = -95014 => 404, "The command needs a service or a product that is not part of this server.",
        "Do without it; docs/commands.md lists these commands.", "ours";
    ALREADY_EXISTS = -95015 => 409, "Something else has this key, name or identifier already.",
        "Choose another, or change the one that the message names.", "ours";
    STORAGE_FULL = -95016 => 507, "The organisation's files take all the room of `files.org_max_bytes`, or of its share of `files.total_max_bytes`.",
        "Delete files; nothing was stored.", "ours";
    STORE_UNAVAILABLE = -95017 => 503, "The server stores nothing at the moment: its disk is nearly full, or its store has failed and is being opened again.",
        "Send again later; unless the message says otherwise, the command was not executed. What deletes works while the disk is nearly full.", "ours";
    LIMIT_REACHED = -95018 => 507, "A pool of the server is used up, or the organisation or principal has its share of it.",
        "The message says which limit and whose share; remove something, or ask the operator. docs/limits.md has the pools.", "ours";
    NO_ANSWER = -95020 => 504, "The thing has not answered in the time that the caller waits, or the mail expired or was purged before.",
        "Find out whether the thing is connected. A mail whose `ttl` lasts still waits for it; `mailbox.find` tells.", "ours";
    MAILBOX_FULL = -95021 => 507, "As many mails wait for the thing as `mailbox.waiting_max` allows, or as many of the sender's as it may have of these: the last eighth is for others.",
        "Wait until the thing has fetched its mail, or take it back by `mailbox.purge`.", "ours";
    MAIL_ENDED = -95022 => 409, "The mail is completed, expired or purged.",
        "Nothing; `mailbox.find` tells what became of it.", "ours";
    THING_DISABLED = -95023 => 403, "The thing is disabled: nothing is published in its name.",
        "Nothing; `thing.find` tells why and until when, `thing.update` with `disabled` false ends it.", "ours";
    IN_USE = -95030 => 409, "The object can't go, or change so, while something else needs it.",
        "The message names what; change or delete that first.", "ours";
}

impl Code {
    /// Its place in [`CODES`]; none for a number that this server does not send.
    pub fn index(self) -> Option<usize> {
        CODES.iter().position(|info| info.code == self)
    }

    /// The status over HTTP, for those who ask for one.
    pub fn http_status(self) -> u16 {
        CODES.iter().find(|info| info.code == self).map_or(500, |info| info.http_status)
    }
}

/// Why a command failed: the code and text for the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// A sentence that names the culprit.
    pub message: Cow<'static, str>,
    /// Seconds after which the same may succeed, where that is known.
    retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure with this code and sentence.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }

    /// The same, of which is known after how many seconds the request may succeed.
    #[must_use]
    pub fn after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Seconds after which the same request should be sent again: those that are known, or a guess.
    /// None if it would fail in the same way.
    pub const fn retry_after_s(&self) -> Option<u64> {
        match (self.retry_after_s, self.code) {
            (None, Code::RATE_LIMITED | Code::BUSY) => Some(1),
            (None, Code::STORE_UNAVAILABLE) => Some(5),
            (known, _) => known,
        }
    }

    /// The session that the request names is gone. Home Assistant's mower integration looks for
    /// the beginning of this sentence, other clients for the code (`docs/protocol/tr50.md` 0, fact
    /// 21).
    pub fn session_invalid(why: &str) -> Self {
        let sentence = format!("Authentication session is invalid: Error: Session {why}");
        Self::new(Code::SESSION_INVALID, sentence)
    }

    /// The request names no session and brings no login.
    pub fn authentication_missing() -> Self {
        let sentence = "Authentication session is invalid: Error: Session id is missing; \
                        send `auth` or the sessionId header.";
        Self::new(Code::AUTHENTICATION_MISSING, sentence)
    }

    /// `what` (such as `session 5f…`) does not exist.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NOT_FOUND, format!("{what} was not found."))
    }

    /// Whether the same request may succeed later without anybody changing anything about it.
    pub const fn is_temporary(&self) -> bool {
        matches!(self.code, Code::RATE_LIMITED | Code::BUSY | Code::STORE_UNAVAILABLE)
    }

    /// Appends the failure object (`docs/protocol/tr50.md` 0, facts 11 and 12).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(out);
        out.push(b'}');
    }

    /// Appends the failure's members without the braces, `success` first.
    pub fn write_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""success":false,"errorCodes":["#);
        crate::json::push_integer(out, self.code.0.into());
        out.extend_from_slice(br#"],"errorMessages":["#);
        crate::json::push_string(out, &self.message);
        out.push(b']');
    }

    /// The failure object as text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.write(&mut out);
        out
    }
}

/// A client's text in a message: its beginning, if it is long.
pub fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// As much of a text as fits into so many bytes, in whole characters.
pub fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// An error and its causes in one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        sentence = format!("{sentence}: {cause}");
        source = cause.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_written_with_success_first() {
        let mut out = Vec::new();
        Failure::new(Code::NOT_FOUND, "Thing \"a\" was not found.").write(&mut out);
        let expected = concat!(
            r#"{"success":false,"errorCodes":[-90008],"#,
            r#""errorMessages":["Thing \"a\" was not found."]}"#
        );
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn who_may_try_again_is_told_when() {
        let check = |code, known: Option<u64>, expected| {
            let failure = Failure::new(code, "x");
            let failure = known.map_or(failure.clone(), |seconds| failure.after(seconds));
            assert_eq!(failure.retry_after_s(), expected, "{code:?}");
        };
        check(Code::NOT_FOUND, None, None);
        check(Code::BUSY, None, Some(1));
        check(Code::RATE_LIMITED, Some(7), Some(7));
        check(Code::LOGIN_LOCKED, Some(60), Some(60));
        for info in CODES {
            let status = info.code.http_status();
            assert!((400..600).contains(&status), "{info:?}");
            assert!(!Failure::new(info.code, "").is_temporary() || matches!(status, 429 | 503));
        }
        assert_eq!(Code(-1).http_status(), 500);
    }

    #[test]
    fn every_code_has_one_row() {
        let mut codes: Vec<_> = CODES.iter().map(|info| info.code).collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
