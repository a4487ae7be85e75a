//! What an idle connection takes, part by part: the parts are built one by one, and what the
//! program holds more after each is counted.

use std::sync::Arc;

use base::{ConnInfo, Protocol, SessionId, ThingId, ThingKey, Timestamp};
use rules::directory::{Lifetime, Session, Start, Who};
use rules::identity::Access;
use rules::identity::model::Application;
use store::Receipt;
use support::TOKEN;
use tr50d::app::App;
use tr50d::things::registry::{Found, Thing};

use crate::in_memory::{InMemory, here, until};
use crate::table::{Table, thousands};
use crate::{ALLOCATOR, Outcome};

/// What the counts of an `Arc` take.
const ARC_BYTES: usize = 16;

/// Adds the parts to the table.
pub(crate) async fn add_to(table: &mut Table, count: usize) -> Outcome<()> {
    let parts = Parts::measure(count).await?;
    let whole = Whole::measure(count).await?;
    let rest = whole.online.saturating_sub(parts.sum() + whole.accepted);
    let mut row = |what: &str, bytes: usize| {
        table.row(what, &format!("{} bytes", thousands(bytes)), None);
    };
    row("a connection in all, without the kernel's part", whole.online);
    row("— task, buffers (none), timer, before the login", whole.accepted);
    row("— what MQTT keeps of the client, less what is only there before the login", rest);
    row("— the session itself", size_of::<Session>() + ARC_BYTES);
    row("— its texts", parts.texts);
    // One call makes both: they can't be told apart.
    row(
        "— its places in the directory's indexes, and its record in the store's memory",
        parts.start,
    );
    row("— the thing that registered, in the store's memory until it is flushed", parts.thing);
    Ok(())
}

/// Bytes of each of the things that a session is made of.
struct Parts {
    thing: usize,
    texts: usize,
    /// The places in the indexes, and the record of the session.
    start: usize,
}

impl Parts {
    fn sum(&self) -> usize {
        let session = size_of::<Session>() + ARC_BYTES;
        self.thing + self.texts + self.start + session
    }

    async fn measure(count: usize) -> Outcome<Self> {
        let server = InMemory::start(&[]).await?;
        let app = server.app();
        let (application, access) = app.identity().admit_application(TOKEN)?;
        let access = Arc::new(access);
        let before = ALLOCATOR.allocated();
        for number in 0..count {
            // Its receipt: all are waited for at once.
            let _ = thing_of(app, &application, number)?;
            if number % 1000 == 0 {
                stored(app).await?;
            }
        }
        stored(app).await?;
        let registered = ALLOCATOR.allocated();
        let start = |number| start_of(app, number, &access);
        let starts = (0..count).map(start).collect::<Outcome<Vec<_>>>()?;
        let texts = (ALLOCATOR.allocated() - registered) / count - size_of::<Start>();
        let mut started = Vec::with_capacity(count);
        for start in starts {
            started.push(app.start(start, false, now())?);
            if app.store_queue() > 1000 {
                stored(app).await?;
            }
        }
        stored(app).await?;
        let begun = ALLOCATOR.allocated() - capacity_bytes(&started);
        let session = size_of::<Session>() + ARC_BYTES + texts;
        let parts = Self {
            thing: (registered - before) / count,
            texts,
            start: ((begun - registered) / count).saturating_sub(session),
        };
        drop(started);
        server.stop().await;
        Ok(parts)
    }
}

/// What a connection takes before and after its login.
struct Whole {
    accepted: usize,
    online: usize,
}

impl Whole {
    async fn measure(count: usize) -> Outcome<Self> {
        let mut server = InMemory::start(&[]).await?;
        let far = server.prepare(count);
        let before = ALLOCATOR.allocated();
        server.accept(far);
        until("all are accepted", || server.all_are_awaited()).await?;
        let accepted = ALLOCATOR.allocated().saturating_sub(before) / count;
        server.login("parts-").await?;
        stored(server.app()).await?;
        let online = ALLOCATOR.allocated().saturating_sub(before) / count;
        server.stop().await;
        Ok(Self { accepted, online })
    }
}

/// What the list of what was started takes, which no server keeps.
fn capacity_bytes(started: &Vec<Arc<Session>>) -> usize {
    started.capacity() * size_of::<Arc<Session>>()
}

/// What a session is made of; those of an application share their rights, as the server has it.
fn start_of(app: &App, number: usize, access: &Arc<Access>) -> Outcome<Start> {
    let (application, _) = app.identity().admit_application(TOKEN)?;
    let (thing, _) = thing_of(app, &application, number)?;
    Ok(Start {
        id: SessionId::from_random(tr50d::random::random()?),
        token: None,
        who: Who::Application { application, thing_id: thing.id, thing_key: thing.key },
        client_id: key(number).into(),
        access: access.clone(),
        conn: ConnInfo::new(Protocol::Mqtt, here()),
        link: rules::directory::Link::default(),
        user_agent: None,
        definition: None,
        lifetime: Lifetime::Connection,
        outbox: None,
    })
}

/// The thing of a device that logs in; it registers if it is new.
fn thing_of(app: &App, application: &Application, number: usize) -> Outcome<(Thing, Receipt)> {
    let id = ThingId::from_bytes(tr50d::random::random()?);
    let app_id = key(number);
    let key = ThingKey::parse(&app_id)?;
    match app.things.log_in(application, key, &app_id, (now(), now()), id, |_, _| ())? {
        Found::Thing(thing, receipt) => Ok((*thing, receipt)),
        Found::Banned | Found::Nothing => Err("the token registers none".into()),
    }
}

async fn stored(app: &App) -> Outcome<()> {
    until("all is stored", || app.store_queue() == 0).await
}

fn key(number: usize) -> String {
    format!("parts-{number}")
}

fn now() -> Timestamp {
    Timestamp::now()
}
