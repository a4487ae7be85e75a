//! What nobody may read in a trace: passwords, tokens, ids of sessions, codes. Each is written over
//! with as many stars, so that a frame stays the frame that it was.
//!
//! They are found by the names of members, and by what they are: whatever is a token, the id of a
//! live session, or a secret that was seen on the same connection, wherever it stands.

use base::SessionId;

use crate::app::App;

/// Words of fewer bytes are no secrets that can be told from others.
const SECRET_BYTES_MIN: usize = 4;

/// Secrets of one connection that are remembered.
const SECRETS_MAX: usize = 64;

/// A member whose name has one of these words in it, whatever stands between its letters.
const SECRET_WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "token",
    "secret",
    "sessionid",
    "authorization",
    "apikey",
    "credential",
    "cookie",
    "authdata",
    "privatekey",
];

/// A member that is called so; `fileid` is the ticket of a file.
const SECRET_NAMES: [&str; 12] = [
    "auth",
    "basic",
    "bearer",
    "pass",
    "pwd",
    "pin",
    "otp",
    "totp",
    "codes",
    "recoverycodes",
    "fileid",
    "ticket",
];

/// What a login may say beside its secrets.
const OPEN_IN_AUTH: [&str; 11] = [
    "command",
    "thingkey",
    "appid",
    "notify",
    "username",
    "success",
    "orgkey",
    "errorcodes",
    "errormessages",
    "code",
    "message",
];

/// The secrets that were seen on a connection.
#[derive(Default)]
pub(super) struct Secrets(pub(super) Vec<Box<[u8]>>);

impl Secrets {
    /// Remembers one.
    pub(super) fn add(&mut self, secret: &[u8]) {
        let known = || self.0.iter().any(|known| **known == *secret);
        if secret.len() >= SECRET_BYTES_MIN && self.0.len() < SECRETS_MAX && !known() {
            self.0.push(secret.into());
        }
    }
}

/// Masks the parts of one frame.
pub struct Masker<'a> {
    app: &'a App,
    secrets: &'a mut Secrets,
    /// Whether a client sent it: a `code` that is a number is the code of an error otherwise.
    incoming: bool,
    masked: bool,
}

impl<'a> Masker<'a> {
    pub(super) const fn new(app: &'a App, secrets: &'a mut Secrets, incoming: bool) -> Self {
        Self { app, secrets, incoming, masked: false }
    }

    /// Whether anything was masked.
    pub const fn masked(&self) -> bool {
        self.masked
    }

    /// Remembers what is secret wherever it comes.
    pub fn remember(&mut self, secret: &[u8]) {
        self.secrets.add(secret);
    }

    /// Masks all of it, and remembers what it was.
    pub fn secret(&mut self, bytes: &mut [u8]) {
        self.secrets.add(bytes);
        self.stars(bytes);
    }

    fn stars(&mut self, bytes: &mut [u8]) {
        self.masked |= !bytes.is_empty();
        bytes.fill(b'*');
    }

    /// Masks what is secret in a text whose name tells whether all of it is.
    pub fn named(&mut self, name: &str, value: &mut [u8]) {
        if self.is_secret(name) { self.secret(value) } else { self.value(value) }
    }

    /// Masks secrets in a value: all of it, words of it, and those that were seen.
    pub fn value(&mut self, bytes: &mut [u8]) {
        if self.is_known(bytes) {
            return self.secret(bytes);
        }
        self.words(bytes, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let is_wide = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',');
        self.words(bytes, is_wide);
        for secret in std::mem::take(&mut self.secrets.0) {
            let mut from = 0;
            while let Some(at) = find(bytes.get(from..).unwrap_or_default(), &secret) {
                let end = from + at + secret.len();
                if let Some(found) = bytes.get_mut(from + at..end) {
                    self.stars(found);
                }
                from = end;
            }
            self.secrets.0.push(secret);
        }
    }

    /// Masks secrets in what may be JSON, whole or not, and may be no text at all.
    pub fn payload(&mut self, bytes: &mut [u8]) {
        if bytes.iter().any(|byte| matches!(byte, b'{' | b'[')) {
            Scanner::new(self, bytes).run();
        }
        self.value(bytes);
    }

    /// Masks secrets in a form, or in the query of a path.
    pub fn form(&mut self, bytes: &mut [u8]) {
        for field in bytes.split_mut(|byte| *byte == b'&') {
            let Some(at) = field.iter().position(|byte| *byte == b'=') else {
                self.value(field);
                continue;
            };
            let (name, value) = field.split_at_mut(at);
            let decode = |bytes: &[u8]| {
                let plain: Vec<u8> =
                    bytes.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
                percent_encoding::percent_decode(&plain).collect::<Vec<u8>>()
            };
            let name = String::from_utf8_lossy(&decode(name)).into_owned();
            let value = value.get_mut(1..).unwrap_or_default();
            let mut plain = decode(value);
            let before = plain.clone();
            self.named(&name, &mut plain);
            self.payload(&mut plain);
            if plain != before {
                self.stars(value);
            } else {
                self.value(value);
            }
        }
    }

    fn words(&mut self, bytes: &mut [u8], is_word: impl Fn(u8) -> bool) {
        let mut start = 0;
        while start < bytes.len() {
            let rest = bytes.get(start..).unwrap_or_default();
            let length = rest.iter().take_while(|byte| is_word(**byte)).count();
            if let Some(word) = bytes.get_mut(start..start + length)
                && self.is_known(word)
            {
                self.secret(word);
            }
            start += length + 1;
        }
    }

    /// Whether these bytes are a token, or the id of a live session.
    fn is_known(&self, bytes: &[u8]) -> bool {
        // What is shorter is neither; a frame may have very many words.
        let lengths = base::limits::TOKEN_BYTES_MIN..=base::limits::TRACED_WORD_BYTES_MAX;
        if !lengths.contains(&bytes.len()) {
            return false;
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let is_session =
            SessionId::parse(text).is_some_and(|id| self.app.directory().by_id(&id).is_some());
        let identity = self.app.identity();
        is_session
            || identity.application_by_token(text).is_some()
            || identity.token_of_user(text).is_some()
    }

    pub(super) fn is_secret(&self, name: &str) -> bool {
        let plain = plain(name);
        SECRET_NAMES.contains(&plain.as_str())
            || SECRET_WORDS.iter().any(|word| plain.contains(word))
            || (self.incoming && plain == "code")
    }
}

/// A name without what may stand between its words.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Where a scan of JSON is: which values are secret.
#[derive(Clone, Copy, Default)]
struct Scope {
    /// All values in it.
    secret: bool,
    /// All that a login need not say in the open.
    auth: bool,
}

/// Goes through what may be JSON and masks values by the names of their members. It takes what is cut
/// off, or no JSON, for what it looks like: a login that fails for a missing bracket has its password
/// in it all the same.
struct Scanner<'m, 'a, 'b> {
    masker: &'m mut Masker<'a>,
    text: &'b mut [u8],
    at: usize,
    scopes: Vec<Scope>,
    scope: Scope,
    /// The name of the member whose value comes.
    key: Option<String>,
    /// A text or word that may be a name: a colon tells.
    last: Option<(usize, usize)>,
}

impl<'m, 'a, 'b> Scanner<'m, 'a, 'b> {
    fn new(masker: &'m mut Masker<'a>, text: &'b mut [u8]) -> Self {
        let scope = Scope::default();
        Self { masker, text, at: 0, scopes: Vec::new(), scope, key: None, last: None }
    }

    fn run(mut self) {
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'{' | b'[' => self.open(),
                b'}' | b']' => {
                    self.end_value();
                    self.scope = self.scopes.pop().unwrap_or_default();
                    self.at += 1;
                }
                b',' => {
                    self.end_value();
                    self.at += 1;
                }
                b':' => {
                    if let Some((start, end)) = self.last.take() {
                        let name = self.text.get(start..end).unwrap_or_default();
                        self.key = Some(unescaped(name).unwrap_or_default());
                    }
                    self.at += 1;
                }
                b'"' => self.string(),
                byte if byte.is_ascii_whitespace() => self.at += 1,
                _ => self.bare(),
            }
        }
        self.end_value();
    }

    fn open(&mut self) {
        self.end_value_before_open();
        let name = self.key.take().map(|key| plain(&key));
        let name = name.as_deref().unwrap_or_default();
        self.scopes.push(self.scope);
        let auth = self.scope.auth || name == "auth";
        let is_secret = !name.is_empty() && name != "auth" && self.masker.is_secret(name);
        self.scope = Scope { secret: self.scope.secret || is_secret, auth };
        self.at += 1;
    }

    /// What stands before a bracket without a comma is a value of its own.
    fn end_value_before_open(&mut self) {
        if self.last.is_some() {
            let key = self.key.take();
            self.end_value();
            self.key = key;
        }
    }

    fn string(&mut self) {
        self.end_value_before_open();
        let start = self.at + 1;
        let mut end = start;
        while let Some(byte) = self.text.get(end).copied() {
            match byte {
                b'\\' => end += 2,
                b'"' => break,
                _ => end += 1,
            }
        }
        let end = end.min(self.text.len());
        self.last = Some((start, end));
        self.at = end + 1;
    }

    fn bare(&mut self) {
        self.end_value_before_open();
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let ends = |byte: &u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"');
        let length = rest.iter().position(|b| ends(b) || b.is_ascii_whitespace());
        let end = start + length.unwrap_or(rest.len()).max(1);
        self.last = Some((start, end));
        self.at = end;
    }

    /// Masks the value that has come, if it is to be.
    fn end_value(&mut self) {
        let key = self.key.take();
        let Some((start, end)) = self.last.take() else { return };
        let name = key.as_deref().map(plain).unwrap_or_default();
        let is_hidden_in_auth =
            self.scope.auth && !name.is_empty() && !OPEN_IN_AUTH.contains(&name.as_str());
        let is_secret = self.scope.secret || is_hidden_in_auth || self.masker.is_secret(&name);
        let is_string = start > 0 && self.text.get(start - 1) == Some(&b'"');
        if !is_string {
            return self.bare_value(start, end, is_secret && name != "errorcodes");
        }
        let Some(value) = self.text.get_mut(start..end) else { return };
        let decoded = unescaped(value);
        if is_secret {
            if let Some(decoded) = &decoded {
                self.masker.secrets.add(decoded.as_bytes());
            }
            return self.masker.stars(value);
        }
        // What is written with escapes is looked at as what it means.
        if value.contains(&b'\\')
            && let Some(decoded) = decoded
        {
            let mut inner = decoded.clone().into_bytes();
            self.masker.payload(&mut inner);
            if inner != decoded.as_bytes() {
                return self.masker.stars(value);
            }
        }
        if self.masker.is_known(value) {
            self.masker.secret(value);
        }
    }

    /// Of a number, digits become nines: it stays a number.
    fn bare_value(&mut self, start: usize, end: usize, is_secret: bool) {
        let Some(value) = self.text.get_mut(start..end).filter(|_| is_secret) else { return };
        if matches!(&*value, b"true" | b"false" | b"null") {
            return;
        }
        let is_number = value.iter().all(|b| b.is_ascii_digit() || b"+-.eE".contains(b));
        self.masker.secrets.add(value);
        match is_number {
            true => {
                value.iter_mut().filter(|b| b.is_ascii_digit()).for_each(|b| *b = b'9');
                self.masker.masked = true;
            }
            false => self.masker.stars(value),
        }
    }
}

/// What a JSON string means; none if its escapes are none.
fn unescaped(inner: &[u8]) -> Option<String> {
    if !inner.contains(&b'\\') {
        return Some(String::from_utf8_lossy(inner).into_owned());
    }
    let text = std::str::from_utf8(inner).ok()?;
    serde_json::from_str(&format!("\"{text}\"")).ok()
}
