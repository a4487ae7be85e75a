//! Logins by client certificates: what they prove (`tls.client_login`).
//!
//! A certificate says which thing or which user is at the other end. A thing's login still needs
//! its token, for keys are unique in an organisation only and the token says which application it
//! is; a user's login needs no password.

use std::sync::Arc;

use base::{ConnInfo, ConnectionId};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rules::identity::Refusal;

use super::{App, Credentials};
use crate::config::ClientLogin;

/// Whom a certificate names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClientNames {
    /// E-mail addresses: those of the subjectAltName first, then CN.
    pub emails: Vec<Box<str>>,
    /// Other names, in the same order.
    pub others: Vec<Box<str>>,
}

/// The certificates that clients of open connections have shown, and what they are good for.
#[derive(Default)]
pub struct Certificates {
    shown: DashMap<ConnectionId, (ClientLogin, ClientNames)>,
}

/// The certificate of one connection; forgotten when this is dropped.
pub struct Shown {
    certificates: Arc<Certificates>,
    connection: ConnectionId,
}

impl Certificates {
    /// Notes the certificate of a connection, which decides over logins of this kind. None: the
    /// number is that of another connection, which has been open for very long.
    pub fn note(
        self: &Arc<Self>,
        connection: ConnectionId,
        login: ClientLogin,
        names: ClientNames,
    ) -> Option<Shown> {
        match self.shown.entry(connection) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert((login, names));
                Some(Shown { certificates: self.clone(), connection })
            }
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.certificates.shown.remove(&self.connection);
    }
}

/// What is to be checked of credentials behind a certificate.
pub(super) enum Proof {
    /// The credentials, in which the name is that of the certificate.
    Credentials(Credentials),
    /// Nothing more: the certificate is this user's.
    User(String),
}

impl App {
    /// Looks at credentials beside the certificate of their connection: a missing name is that of
    /// the certificate, another one is refused.
    pub(super) fn behind_certificate(
        &self,
        credentials: Credentials,
        conn: ConnInfo,
    ) -> Result<Proof, Refusal> {
        if !conn.certified {
            return Ok(Proof::Credentials(credentials));
        }
        // If its connection is gone, nobody waits for the answer.
        let shown = self.certificates.shown.get(&conn.connection).ok_or(Refusal::NoAccess)?;
        let (login, names) = shown.value();
        match (login, credentials) {
            (ClientLogin::Thing, Credentials::Application { thing_key, token, app_id }) => {
                let same = |name: &str| name == thing_key;
                let thing_key = named(&names.others, &thing_key, same)?.to_owned();
                Ok(Proof::Credentials(Credentials::Application { thing_key, token, app_id }))
            }
            (ClientLogin::User, Credentials::User { name, password, code }) => {
                let same = |email: &str| email.to_lowercase() == name.to_lowercase();
                let name = named(&names.emails, &name, same)?.to_owned();
                Ok(match password.is_empty() {
                    true => Proof::User(name),
                    false => Proof::Credentials(Credentials::User { name, password, code }),
                })
            }
            // Who says nothing is who the certificate says.
            (ClientLogin::User, Credentials::Application { thing_key, token, .. })
                if thing_key.is_empty() && token.is_empty() =>
            {
                Ok(Proof::User(named(&names.emails, "", |_| true)?.to_owned()))
            }
            (_, credentials) => Ok(Proof::Credentials(credentials)),
        }
    }
}

/// The certificate's name that a login means, which may leave it out.
fn named<'a>(
    names: &'a [Box<str>],
    said: &str,
    same: impl Fn(&str) -> bool,
) -> Result<&'a str, Refusal> {
    let name = match said {
        "" => names.first(),
        _ => names.iter().find(|name| same(name)),
    };
    name.map(|name| &**name).ok_or(Refusal::BadCredentials)
}
