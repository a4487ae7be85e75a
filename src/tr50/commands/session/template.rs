//! The rows of a listing of sessions. Most differ from others in a few values only: what a row has
//! in common with one before it is copied, and only what its session has of its own is written.

use std::sync::Arc;

use base::{Clock, Protocol, Tls, json::ObjectWriter};
use rules::directory::{Lifetime, OrgContext, Reason, Session, Who};
use rules::identity::model::Application;
use rules::identity::{Access, Token};

use super::list::Shown;
use super::row::{Own, Row, ended};

/// Templates that a listing keeps: rows of more kinds than that are hardly ever mixed.
const TEMPLATES: usize = 16;

/// Which members of a session its row has.
#[derive(Clone, Copy)]
pub(super) enum Members<'a> {
    /// All; to who does not administer the organisation without the client id.
    All { with_client_id: bool },
    /// Those that are asked for.
    Shown(&'a Shown),
}

/// Writes the rows of one listing.
pub(super) struct Rows<'a> {
    members: Members<'a>,
    clock: &'a Clock,
    templates: Vec<Template>,
    /// The one that was used last, with which the next row is compared first.
    last: usize,
}

/// A row without what its session has of its own.
struct Template {
    traits: Traits,
    access: Arc<Access>,
    application: Option<Arc<Application>>,
    token: Option<Arc<Token>>,
    parts: Vec<Part>,
    /// What is behind the last value of the session's own.
    rest: Text,
}

/// A text, and the value behind it.
struct Part {
    text: Text,
    own: Own,
}

/// A text that is copied many times. To copy a number of bytes that is known to the compiler takes a
/// few moves, and any other takes a call: short texts are copied with what is behind them.
struct Text {
    short: [u8; SHORT],
    len: usize,
    /// The whole text if it is long.
    long: Box<[u8]>,
}

const SHORT: usize = 32;

/// On what it depends which members a session has, and what those say that are not of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Traits {
    protocol: Protocol,
    tls: Option<Tls>,
    bound: bool,
    mqtt_level: u8,
    ttl_s: u64,
    reason: Option<Reason>,
    has_traffic: bool,
    has_user_agent: bool,
    has_switched: bool,
}

impl Traits {
    fn of(session: &Session, context: &OrgContext) -> Self {
        let conn = session.conn();
        Self {
            protocol: conn.protocol,
            tls: conn.tls,
            bound: session.lifetime() == Lifetime::Connection,
            mqtt_level: session.link().mqtt_level,
            ttl_s: session.ttl_s(),
            reason: ended(session),
            has_traffic: session.has_traffic(),
            has_user_agent: session.user_agent().is_some(),
            has_switched: !context.switches.is_empty(),
        }
    }
}

impl<'a> Rows<'a> {
    /// For a listing with these members.
    pub(super) const fn new(members: Members<'a>, clock: &'a Clock) -> Self {
        Self { members, clock, templates: Vec::new(), last: 0 }
    }

    /// Begins the row of a session. More members may follow, and the caller ends the object.
    pub(super) fn begin<'o>(
        &mut self,
        out: &'o mut Vec<u8>,
        session: &Session,
        context: &OrgContext,
    ) -> ObjectWriter<'o> {
        let traits = Traits::of(session, context);
        let fits = |template: &Template| template.fits(traits, session, context);
        let last = self.templates.get(self.last).is_some_and(fits).then_some(self.last);
        match last.or_else(|| self.templates.iter().position(fits)) {
            Some(found) => {
                self.last = found;
                self.templates[found].fill(out, session, context, self.clock);
            }
            None => self.write(out, traits, session, context),
        }
        if out.last() == Some(&b'{') {
            out.pop();
            return ObjectWriter::new(out);
        }
        ObjectWriter::further(out)
    }

    /// Writes a row that is like none before, and keeps what it has in common with others.
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        traits: Traits,
        session: &Session,
        context: &OrgContext,
    ) {
        let start = out.len();
        let mut object = ObjectWriter::new(out);
        let mut row = Row::new(&mut object, session, context, self.clock, traits.reason);
        match self.members {
            Members::All { with_client_id } => {
                row.write();
                row.write_link(with_client_id);
            }
            Members::Shown(shown) => row.write_shown(shown),
        }
        let (mut parts, mut at) = (Vec::with_capacity(row.places.len()), start);
        let places = row.places;
        for place in places {
            let text = Text::of(out.get(at..place.start).unwrap_or_default());
            parts.push(Part { text, own: place.own });
            at = place.end;
        }
        let application = match session.who() {
            Who::Application { application, .. } => Some(application.clone()),
            Who::User(_) => None,
        };
        let (access, token) = (context.access.clone(), session.token().cloned());
        let rest = Text::of(out.get(at..).unwrap_or_default());
        let template = Template { traits, access, application, token, parts, rest };
        // Of too many, each takes the place of another in turn.
        if self.templates.len() < TEMPLATES {
            self.last = self.templates.len();
            self.templates.push(template);
        } else {
            self.last = (self.last + 1) % TEMPLATES;
            self.templates[self.last] = template;
        }
    }
}

impl Template {
    /// Whether the row of this session has the same texts.
    fn fits(&self, traits: Traits, session: &Session, context: &OrgContext) -> bool {
        let is_of_application = || match (session.who(), &self.application) {
            (Who::Application { application, .. }, Some(known)) => Arc::ptr_eq(application, known),
            (Who::User(_), None) => true,
            _ => false,
        };
        let has_token = || match (session.token(), &self.token) {
            (Some(token), Some(known)) => Arc::ptr_eq(token, known),
            (None, None) => true,
            _ => false,
        };
        self.traits == traits && is_of_application() && has_token() && self.access == context.access
    }

    fn fill(&self, out: &mut Vec<u8>, session: &Session, context: &OrgContext, clock: &Clock) {
        for part in &self.parts {
            part.text.push(out);
            part.own.write(out, session, context, clock);
        }
        self.rest.push(out);
    }
}

impl Text {
    fn of(text: &[u8]) -> Self {
        let (mut short, len) = ([0; SHORT], text.len());
        if let Some(begin) = short.get_mut(..len) {
            begin.copy_from_slice(text);
            return Self { short, len, long: Box::default() };
        }
        Self { short, len, long: text.into() }
    }

    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        if self.len <= SHORT {
            out.extend_from_slice(&self.short);
            out.truncate(out.len() - (SHORT - self.len));
        } else {
            out.extend_from_slice(&self.long);
        }
    }
}
