//! The rows of a listing of sessions. Most differ from others in a few values only: a row is the one
//! before it of the same kind, in which what its session has of its own is written over.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use base::json::{self, ObjectWriter};
use base::{Clock, Protocol, Timestamp, Tls};
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

impl Members<'_> {
    /// Tells these from others: which members of [`Members::Shown`], and the client id or not.
    const fn shape(self) -> (Option<u64>, bool) {
        match self {
            Self::All { with_client_id } => (None, with_client_id),
            Self::Shown(shown) => (Some(shown.wanted), shown.shows_client_id),
        }
    }

    fn write(self, row: &mut Row<'_, '_>) {
        match self {
            Self::All { with_client_id } => {
                row.write();
                row.write_link(with_client_id);
            }
            Self::Shown(shown) => row.write_shown(shown),
        }
    }
}

thread_local! {
    /// The templates of this thread's last listing: the next one is probably of the same kind.
    static LAST: Cell<Vec<Template>> = const { Cell::new(Vec::new()) };
}

/// Writes the rows of one listing.
pub(super) struct Rows<'a> {
    members: Members<'a>,
    clock: &'a Clock,
    templates: Vec<Template>,
    /// The one that was used last, with which the next row is compared first.
    last: usize,
}

/// A row, and what of it its session has of its own.
struct Template {
    traits: Traits,
    access: Arc<Access>,
    application: Option<Arc<Application>>,
    token: Option<Arc<Token>>,
    parts: Vec<Part>,
    /// What is behind the last value of the session's own.
    rest: Box<[u8]>,
    /// The last row that was written; its end may be followed by what is none of it.
    row: Vec<u8>,
    /// For a value that is written elsewhere first.
    spare: Vec<u8>,
}

/// A text, and the value behind it.
struct Part {
    text: Box<[u8]>,
    own: Own,
    /// Bytes of the value in the last row.
    len: usize,
    /// Of a time, its second in the last row; none: it is not known.
    second: Option<i64>,
}

/// On what it depends which members a session has, and what those say that are not of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Traits {
    /// That of the [`Members`].
    shape: (Option<u64>, bool),
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
    fn of(members: Members<'_>, session: &Session, context: &OrgContext) -> Self {
        let conn = session.conn();
        Self {
            shape: members.shape(),
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
    pub(super) fn new(members: Members<'a>, clock: &'a Clock) -> Self {
        Self { members, clock, templates: LAST.take(), last: 0 }
    }

    /// Begins the row of a session. More members may follow, and the caller ends the object.
    pub(super) fn begin<'o>(
        &mut self,
        out: &'o mut Vec<u8>,
        session: &Session,
        context: &OrgContext,
    ) -> ObjectWriter<'o> {
        let traits = Traits::of(self.members, session, context);
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
        self.members.write(&mut row);
        let (mut parts, mut at) = (Vec::with_capacity(row.places.len()), start);
        let places = row.places;
        for place in places {
            let text = out.get(at..place.start).unwrap_or_default().into();
            let (own, len) = (place.own, place.end - place.start);
            parts.push(Part { text, own, len, second: None });
            at = place.end;
        }
        let application = match session.who() {
            Who::Application { application, .. } => Some(application.clone()),
            Who::User(_) => None,
        };
        let (access, token) = (context.access.clone(), session.token().cloned());
        let rest = out.get(at..).unwrap_or_default().into();
        let row = out.get(start..).unwrap_or_default().to_vec();
        let spare = Vec::new();
        let template = Template { traits, access, application, token, parts, rest, row, spare };
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

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        LAST.set(std::mem::take(&mut self.templates));
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

    /// Appends the row of this session, which has the same texts.
    fn fill(&mut self, out: &mut Vec<u8>, session: &Session, context: &OrgContext, clock: &Clock) {
        let source = Source { session, context, clock };
        // What is behind a value of another length than in the last row is at another place.
        let (mut at, mut moves) = (0, false);
        for part in &mut self.parts {
            let start = at + part.text.len();
            if moves {
                put(&mut self.row, at, &part.text);
            }
            let len = part.put(&mut self.row, start, moves, &source, &mut self.spare);
            moves |= len != part.len;
            part.len = len;
            at = start + len;
        }
        if moves {
            put(&mut self.row, at, &self.rest);
        }
        at += self.rest.len();
        out.extend_from_slice(self.row.get(..at).unwrap_or_default());
    }
}

/// Of what a row tells.
struct Source<'a> {
    session: &'a Session,
    context: &'a OrgContext,
    clock: &'a Clock,
}

impl Part {
    /// Writes the value into the row, over that of the last one if that is in the same place, and
    /// over nothing else; returns its length.
    fn put(
        &mut self,
        row: &mut Vec<u8>,
        at: usize,
        moves: bool,
        source: &Source<'_>,
        spare: &mut Vec<u8>,
    ) -> usize {
        let Source { session, context, clock } = source;
        let written = match self.own {
            Own::Ref => {
                let digits = json::hex_digits(session.reference().as_bytes());
                Some(put_quoted(row, at, digits.as_flattened()))
            }
            Own::Name => put_plain(row, at, session.who().name()),
            Own::ClientId => put_plain(row, at, session.client_id()),
            Own::RemoteAddr => match session.conn().remote_addr {
                SocketAddr::V4(address) => {
                    let (text, len) = json::address_text(address);
                    Some(put(row, at, text.get(..len).unwrap_or_default()))
                }
                SocketAddr::V6(_) => None,
            },
            own => own.time(session).map(|time| {
                let known = self.second.filter(|_| !moves);
                self.put_time(row, at, known, clock.shown(time))
            }),
        };
        written.unwrap_or_else(|| {
            spare.clear();
            self.own.write(spare, session, context, clock);
            put(row, at, spare)
        })
    }

    /// Writes a time over one of the second `known`.
    fn put_time(
        &mut self,
        row: &mut Vec<u8>,
        at: usize,
        known: Option<i64>,
        time: Timestamp,
    ) -> usize {
        const LEN: usize = 24;
        make_room(row, at + LEN + 2);
        let field = row.get_mut(at..).and_then(|row| row.split_first_mut());
        if let Some((quote, rest)) = field
            && let Some((text, [end, ..])) = rest.split_first_chunk_mut::<LEN>()
        {
            (*quote, *end) = (b'"', b'"');
            self.second = Some(time.write_over(text, known));
        }
        LEN + 2
    }
}

/// How much longer a row is made than it has to be.
const ROOM: usize = 256;

fn make_room(row: &mut Vec<u8>, end: usize) {
    if row.len() < end {
        row.resize(end + ROOM, 0);
    }
}

/// Writes a text into the row; returns its length.
fn put(row: &mut Vec<u8>, at: usize, text: &[u8]) -> usize {
    let end = at + text.len();
    make_room(row, end);
    if let Some(field) = row.get_mut(at..end) {
        field.copy_from_slice(text);
    }
    text.len()
}

/// The same for a string that needs no escapes.
fn put_quoted(row: &mut Vec<u8>, at: usize, text: &[u8]) -> usize {
    let end = at + text.len() + 2;
    make_room(row, end);
    if let Some([begin, field @ .., end]) = row.get_mut(at..end) {
        (*begin, *end) = (b'"', b'"');
        field.copy_from_slice(text);
    }
    text.len() + 2
}

/// The same for any string; none: it needs escapes.
fn put_plain(row: &mut Vec<u8>, at: usize, text: &str) -> Option<usize> {
    let text = text.as_bytes();
    json::first_special(text).is_none().then(|| put_quoted(row, at, text))
}

#[cfg(test)]
mod tests {
    use base::{ConnInfo, SessionId, ThingId, ThingKey, UserAgent, UserId};
    use proptest::prelude::*;
    use rules::directory::{DirectoryConfig, DirectoryWriter, Link, Outbox, Start};
    use rules::identity::model::User;

    use super::*;
    use crate::app::App;
    use crate::app::tests::{NOW, demo};

    /// In what sessions differ.
    #[derive(Clone, Debug)]
    struct Facts {
        user: bool,
        name: String,
        address: SocketAddr,
        protocol: Protocol,
        bound: bool,
        link: Link,
        client_id: String,
        user_agent: Option<UserAgent>,
        started_ms: i64,
        commands: u64,
        end: Option<(usize, i64)>,
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let ms = || prop_oneof![0..1000_i64, 0..100_000_i64];
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(Into::into),
            any::<u128>().prop_map(|ip| { std::net::IpAddr::V6(ip.into()) })
        ];
        let who = (any::<bool>(), "[a-c\"é-]{1,9}", "[a-c\\\\]{0,3}");
        let agent = prop::option::of("[a-c\"]{1,9}");
        let conn = (ip, 0..70_u16, any::<bool>(), any::<bool>(), 3..6_u8, 0..300_u16);
        let end = prop::option::of((0..Reason::ALL.len(), ms()));
        (who, agent, conn, ms(), 0..120_u64, end).prop_map(
            |((user, name, client_id), agent, conn, started_ms, commands, end)| {
                let (ip, port, is_mqtt, bound, mqtt_level, keep_alive_s) = conn;
                let mqtt = Link { mqtt_level, keep_alive_s };
                let (protocol, link) = match is_mqtt {
                    true => (Protocol::Mqtt, mqtt),
                    false => (Protocol::Https, Link::default()),
                };
                let user_agent = agent.and_then(|agent| UserAgent::read(agent.as_bytes()));
                let address = (ip, port * port).into();
                Facts {
                    user,
                    name,
                    address,
                    protocol,
                    bound,
                    link,
                    client_id,
                    user_agent,
                    started_ms,
                    commands,
                    end,
                }
            },
        )
    }

    /// Starts such a session, and ends it if it has ended.
    fn session(
        app: &App,
        directory: &DirectoryWriter,
        number: usize,
        facts: Facts,
    ) -> Arc<Session> {
        let (identity, mut id) = (app.identity(), [0; 12]);
        id[..8].copy_from_slice(&number.to_be_bytes());
        let application =
            identity.application_by_token("demo-token-basicorg").expect("of the demo");
        let operator = identity.user_by_email("operator@basicorg.example").expect("of the demo");
        let org = identity.org(application.org).expect("of the demo");
        let (who, access) = if facts.user {
            let user = User::bare(UserId::from_bytes(id), facts.name, org.id);
            (Who::User(Arc::new(user)), identity.user_access(&operator, &org))
        } else {
            let thing_key = ThingKey::parse(&facts.name).expect("a key");
            let access = identity.application_access(&application);
            let thing_id = ThingId::from_bytes(id);
            (Who::Application { application, thing_id, thing_key }, access)
        };
        let now = NOW.plus_millis(facts.started_ms);
        let start = Start {
            id: SessionId::from_random(id),
            who,
            token: None,
            client_id: facts.client_id.into(),
            access: Arc::new(access.expect("rights")),
            conn: ConnInfo::new(facts.protocol, facts.address),
            link: facts.link,
            user_agent: facts.user_agent,
            definition: None,
            lifetime: match facts.bound {
                true => Lifetime::Connection,
                false => Lifetime::Until(now.plus_seconds(1000)),
            },
            outbox: facts.bound.then(|| Arc::new(Outbox::new(true))),
        };
        let (session, started) = directory.start(start, false, now).expect("room");
        drop(started);
        session.touch(now.plus_millis(facts.commands as i64), facts.commands);
        if let Some((reason, after_ms)) = facts.end {
            let at = now.plus_millis(after_ms);
            drop(directory.end(&session, Reason::ALL[reason], at));
        }
        session
    }

    fn anew(members: Members<'_>, session: &Session, clock: &Clock) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = ObjectWriter::new(&mut out);
        session.with_context(|context| {
            members.write(&mut Row::new(&mut object, session, context, clock, ended(session)));
        });
        object.end();
        out
    }

    #[tokio::test]
    async fn rows_are_as_if_each_were_written_anew() {
        let (app, _) = demo();
        let show = ["startTime", "thingKey", "connInfo", "endTime", "userName"].map(str::to_owned);
        let shown = Shown::of((&show, &[]), None, false).expect("members");
        let members = |which: u8| match which {
            0 => Members::All { with_client_id: true },
            1 => Members::All { with_client_id: false },
            _ => Members::Shown(&shown),
        };
        let listing = (0..3_u8, prop::collection::vec(facts(), 1..20));
        proptest!(|(listings in prop::collection::vec(listing, 1..4))| {
            let config = DirectoryConfig {
                ttl_s: 1000,
                max_age_s: 1000,
                sessions_max: 1000,
                per_principal_max: 1000,
                history_max: 1000,
                history_age_s: 1000,
            };
            let directory = DirectoryWriter::new(config, &Arc::default(), NOW);
            for (at, (which, all)) in listings.into_iter().enumerate() {
                let mut rows = Rows::new(members(which), &app.clock);
                for (number, facts) in all.into_iter().enumerate() {
                    let session = session(&app, &directory, 100 * at + number, facts);
                    let mut out = Vec::new();
                    session.with_context(|context| rows.begin(&mut out, &session, context).end());
                    let expected = anew(members(which), &session, &app.clock);
                    let text = |bytes| String::from_utf8(bytes).expect("text");
                    prop_assert_eq!(text(out), text(expected));
                }
            }
        });
    }
}
