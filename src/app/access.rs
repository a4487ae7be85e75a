//! Changes of rights: live sessions get the access that their principals have now.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::{ApplicationId, Door, Failure, OrgId, ThingId, Timestamp, UserId, limits};
use rules::directory::{Event, Events, Kind, Principal, Reason, Session, Who};
use rules::identity::{Access, Source};
use store::{Receipt, StoreError};
use tokio::sync::oneshot;

use super::App;
use super::effects::{Affected, Goodbyes, Outcome, SessionChange};
use super::happened::{Acts, By};
use super::turns::Worker;
use crate::broker::{Identity, Scope, Session as KeptSession};

/// Whose sessions follow a change of rights: those in organisations, and those of users elsewhere.
pub(super) struct Followers {
    orgs: HashSet<OrgId>,
    users: Vec<UserId>,
}

/// What came of a change of rights that many sessions follow, for each who waits for it.
#[derive(Clone)]
pub(super) struct Followed {
    stored: Result<(), Failure>,
    goodbyes: Arc<Goodbyes>,
}

impl From<Followed> for Outcome {
    fn from(Followed { stored, goodbyes }: Followed) -> Self {
        Self { stored, goodbyes: Goodbyes::shared(goodbyes) }
    }
}

/// Wills that wait for their delay, and end with those whose they are.
pub trait DelayedWills: Send + Sync {
    /// Drops those of who is gone, which somebody in this scope may be.
    fn drop_of_gone(&self, app: &App, scope: &Scope);
}

impl App {
    /// Has wills that wait end with those whose they are.
    pub fn watch_delayed_wills(&self, wills: Arc<dyn DelayedWills>) {
        if self.delayed_wills.set(wills).is_err() {
            tracing::error!("there is somebody who has the wills already");
        }
    }

    /// Whether who had a session, which may have ended long ago, is in no records any more. A single
    /// thing is looked for only where it is what may be gone.
    pub fn is_gone(&self, session: &Session, scope: &Scope) -> bool {
        match session.who() {
            Who::User(user) => self.records.user(user.id).is_none(),
            Who::Application { application, thing_id, .. } => {
                // What can't be read is there.
                let has = || self.things.has(application.org, *thing_id).unwrap_or(true);
                let is_one = matches!(scope, Scope::Login(_));
                self.records.application(application.id).is_none() || is_one && !has()
            }
        }
    }

    /// Gives a session the rights that its principal has now.
    pub(super) fn refresh_access(&self, session: &Arc<Session>, now: Timestamp) -> Events {
        self.sessions.refresh(session, now, |_, org| self.access_now(session, org))
    }

    /// Lets a session go on without a second factor that it is about to require of its own user: who
    /// requires it is not cut off half-way. The next login needs it.
    pub fn spare_enrolment(&self, session: &Session) {
        self.sessions.spare_enrolment(session);
    }

    /// What a session's principal is in an organisation now; or why it may not be there. Of an
    /// application's thing nothing is asked.
    fn access_now(&self, session: &Session, org: OrgId) -> Result<Access, Reason> {
        let identity = &self.records;
        let now = self.clock.now();
        match session.who() {
            Who::User(user) => match identity.user(user.id) {
                Some(user) if user.ban.is_banned(now) => Err(Reason::Banned),
                Some(user) => {
                    let rights = |org| match session.is_spared_enrolment() {
                        true => identity.user_rights(&user, &org),
                        false => identity.user_access(&user, &org),
                    };
                    let access = identity.org(org).and_then(rights).ok_or(Reason::Revoked)?;
                    let Some(token) = session.token() else { return Ok(access) };
                    user.check_token(token, now).map_err(|_| Reason::Revoked)?;
                    Ok(access.by_token(token))
                }
                None => Err(Reason::Revoked),
            },
            Who::Application { application: before, .. } => {
                // Who has a token that is gone or over is not welcome any more.
                let (token, first) = (session.token().map(|token| &**token), &before.token_hash);
                let found = identity.application(before.id);
                let found = found.filter(|found| found.check_token(token, first, now).is_ok());
                match found {
                    Some(found) if found.ban.is_banned(now) => Err(Reason::Banned),
                    Some(found) => identity.application_access(&found).ok_or(Reason::Revoked),
                    None => Err(Reason::Revoked),
                }
            }
        }
    }

    /// What gives a session rights where it is now.
    pub fn sources_of(&self, session: &Session) -> Vec<Source> {
        let (identity, org) = (&self.records, session.org_id());
        match session.who() {
            // Who is on the machine is in no records.
            Who::User(user) if session.conn().door == Door::Control => {
                identity.sources_of_user(user, org)
            }
            Who::User(user) => match identity.user(user.id) {
                Some(user) => identity.sources_of_user(&user, org),
                None => Vec::new(),
            },
            Who::Application { application, .. } => match identity.application(application.id) {
                Some(application) => identity.sources_of_application(&application),
                None => Vec::new(),
            },
        }
    }

    /// Whether the thing of a session is there and not disabled; users have none.
    fn has_welcome_thing(&self, who: &Who) -> Result<bool, StoreError> {
        self.things.unwelcome(who, self.clock.now()).map(|why| why.is_none())
    }

    /// Whether who had a session, which may have ended long ago, still has the rights of then: the
    /// access of a session that has ended follows no change.
    ///
    /// # Errors
    ///
    /// What the store reports, which is asked for an application's thing.
    pub fn has_access_of_then(&self, session: &Session) -> Result<bool, StoreError> {
        let then = session.access();
        let now = self.access_now(session, then.org.id);
        // Of topics it is asked when something is published there.
        if now.map_or(true, |now| now.without_topics() != then.without_topics()) {
            return Ok(false);
        }
        self.has_welcome_thing(session.who())
    }

    /// Whether who had a session, which may have ended long ago, may publish to an ordinary topic of
    /// its organisation now.
    ///
    /// # Errors
    ///
    /// What the store reports, which is asked for an application's thing.
    pub fn may_publish_now(&self, session: &Session, topic: &str) -> Result<bool, StoreError> {
        let (who, org) = (session.who(), session.org_id());
        let access = self.access_now(session, org);
        if !access.is_ok_and(|access| access.topic_publish.allows(topic, who.own_key())) {
            return Ok(false);
        }
        self.has_welcome_thing(who)
    }

    /// A session as it would be in another organisation, without going there: for somebody who looks
    /// at several at once. None if its principal has no rights there now, or it has ended.
    pub fn session_seen_in(
        &self,
        session: &Arc<Session>,
        org: OrgId,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        if session.end().is_some() || session.kind() != Kind::User {
            return None;
        }
        let access = self.access_now(session, org).ok()?;
        Some(Arc::new(session.seen_with(Arc::new(access), now)))
    }

    /// Whether who had a session, which may have ended long ago, may still use a command on a thing
    /// of an organisation, or on the organisation itself. Who was thrown out may not.
    pub fn may_still(
        &self,
        session: &Session,
        (org, subject): (OrgId, Option<ThingId>),
        command: &str,
    ) -> bool {
        if session.end().is_some_and(|end| end.reason.is_revocation()) {
            return false;
        }
        if session.is_detached() {
            // Of who has the data directory.
            return true;
        }
        let access = self.access_now(session, org);
        let access = access.ok().filter(|access| access.allows(command));
        let Some(access) = access else { return false };
        let Who::Application { thing_id: own, .. } = session.who() else { return true };
        // What can't be read is as it was.
        let bound = |thing: ThingId| {
            let found = self.things.by_id(org, thing);
            found.map_or(true, |found| found.is_some_and(|found| found.bound_to == Some(*own)))
        };
        self.has_welcome_thing(session.who()).unwrap_or(true)
            && (!access.restricted_to_self
                || subject.is_none_or(|thing| thing == *own || bound(thing)))
    }

    /// Ends the waiting for answers of devices of a session that was thrown out, or may no longer
    /// ask them anything.
    pub(super) fn hang_up(&self, events: &[Event]) {
        for event in events {
            let session = match event {
                Event::Ended(session, reason) if reason.is_revocation() => session,
                Event::Revoked(session) | Event::RightsChanged(session) => session,
                _ => continue,
            };
            let access = session.access();
            let lives = session.end().is_none();
            if !lives || !(access.allows("method.exec") || access.allows("mailbox.send")) {
                self.mailbox.hang_up(session.number());
            }
        }
    }

    /// Has MQTT sessions that outlive their connections follow the rights of those whose they are:
    /// they end when those are gone, or may no longer be in the organisation, and lose the
    /// subscriptions that may no longer be held.
    pub(super) fn follow_kept_sessions(&self, sessions: Vec<Arc<KeptSession>>) {
        let records = &self.records;
        let known: RefCell<HashMap<ApplicationId, Option<Arc<Access>>>> = RefCell::default();
        let of_application = |id: ApplicationId| {
            let access = || Some(Arc::new(records.application_access(&*records.application(id)?)?));
            known.borrow_mut().entry(id).or_insert_with(access).clone()
        };
        let ended = self.broker.sweep(sessions, |owner, org, identity| {
            let access = match (&owner.principal, identity) {
                (Principal::User(id), Identity { token, .. }) => {
                    let (user, org) = records.user(*id).zip(records.org(org))?;
                    let access = records.user_access(&user, &org)?;
                    let Some(token) = token else { return Some(Arc::new(access)) };
                    let token = user.tokens.iter().find(|known| known.id == token)?;
                    token.terms.check(self.clock.now()).ok()?;
                    Some(Arc::new(access.by_token(token)))
                }
                (Principal::Thing(..), Identity { thing, application, .. }) => {
                    // What can't be read is there.
                    let there = thing.is_none_or(|id| self.things.has(org, id).unwrap_or(true));
                    application.filter(|_| there).and_then(of_application)
                }
            };
            access.filter(|access| access.org.id == org)
        });
        if ended > 0 {
            tracing::info!(ended, "MQTT sessions ended with those whose they were");
        }
    }

    /// The same for a login whose object is gone.
    pub(super) fn end_kept_sessions(&self, gone: &Principal) {
        self.drop_wills(&Scope::Login(gone.clone()));
        self.follow_kept_sessions(self.broker.kept_sessions_of(gone));
    }

    fn drop_wills(&self, scope: &Scope) {
        if let Some(wills) = self.delayed_wills.get() {
            wills.drop_of_gone(self, scope);
        }
    }

    /// What follows a change of rights beside sessions: the wills of who is gone, and the retained
    /// messages of an organisation that is.
    fn follow_beside_sessions(&self, affected: Affected) {
        self.drop_wills(&match affected {
            Affected::User(id) => Scope::Login(Principal::User(id)),
            Affected::Org(org) => Scope::Org(org),
            Affected::Within(_) | Affected::Members(_) => Scope::All,
        });
        if let Affected::Org(org) = affected
            && self.records.org(org).is_none()
            && let Err(error) = self.broker.forget_retained(org)
        {
            store::report(&error, "retained messages were not forgotten");
        }
    }

    /// Whose sessions follow a change of rights.
    pub(super) fn followers(&self, affected: Affected) -> Followers {
        let identity = &self.records;
        let within = |top| {
            let orgs = identity.orgs().into_iter().map(|org| org.id);
            orgs.filter(|org| identity.is_within(*org, top)).collect::<HashSet<_>>()
        };
        match affected {
            Affected::User(id) => Followers { orgs: HashSet::new(), users: vec![id] },
            Affected::Org(org) => Followers { orgs: HashSet::from([org]), users: Vec::new() },
            Affected::Within(top) => Followers { orgs: within(top), users: Vec::new() },
            Affected::Members(top) => {
                let orgs = within(top);
                let users = orgs.iter().flat_map(|org| identity.users_of(*org));
                let users: HashSet<_> = users.map(|user| user.id).collect();
                Followers { orgs, users: users.into_iter().collect() }
            }
        }
    }

    /// Whether they have so few sessions that all of them follow at once.
    pub(super) fn are_few(&self, Followers { orgs, users }: &Followers) -> bool {
        const MAX: usize = limits::EXPIRY_STEP;
        let logins = || users.iter().map(|id| Principal::User(*id));
        let live = || {
            let in_orgs = orgs.iter().map(|org| self.sessions.count(*org));
            in_orgs.chain(logins().map(|login| self.sessions.count_of(&login))).sum::<usize>()
        };
        let kept = || {
            let in_orgs = orgs.iter().map(|org| self.broker.kept_in(*org, 0, MAX + 1).len());
            in_orgs
                .chain(logins().map(|login| self.broker.kept_sessions_of(&login).len()))
                .sum::<usize>()
        };
        users.len() <= MAX && live() <= MAX && kept() <= MAX
    }

    /// Every live session of those whose rights have changed. Those that begin later, or go to another
    /// organisation, find the change themselves.
    pub(super) fn sessions_of(&self, Followers { orgs, users }: &Followers) -> Vec<Arc<Session>> {
        let in_orgs = orgs.iter().flat_map(|org| self.sessions.in_org(*org));
        let of_users =
            users.iter().flat_map(|id| self.sessions.of_principal(&Principal::User(*id)));
        in_orgs.chain(of_users.filter(|session| !orgs.contains(&session.org_id()))).collect()
    }

    /// Has everything else than live sessions follow a change of rights, of which there is little.
    pub(super) fn follow_at_once(&self, affected: Affected, followers: &Followers) {
        self.follow_beside_sessions(affected);
        for org in &followers.orgs {
            self.follow_kept_sessions(self.broker.kept_in(*org, 0, usize::MAX));
        }
        for id in &followers.users {
            self.follow_kept_sessions(self.broker.kept_sessions_of(&Principal::User(*id)));
        }
    }

    /// Has everything follow a change of rights, of which there is much; done for all who change the
    /// rights of the same before it begins.
    pub(super) fn follow_in_steps(
        self: &Arc<Self>,
        affected: Affected,
        by: Option<By>,
        worker: Worker,
    ) -> oneshot::Receiver<Followed> {
        let app = self.clone();
        let pass = move || {
            let (app, by) = (app.clone(), by.clone());
            async move {
                let kept = app.follow_kept_in_steps(affected, worker).await;
                let live = app.follow_live_in_steps(affected, by, worker).await;
                Followed { stored: kept.and(live.stored), goodbyes: Arc::new(live.goodbyes) }
            }
        };
        self.followed.ask((affected, worker), pass)
    }

    async fn follow_live_in_steps(
        self: &Arc<Self>,
        affected: Affected,
        by: Option<By>,
        worker: Worker,
    ) -> Outcome {
        let (app, now) = (self.clone(), self.clock.now());
        let looked = self.offload(worker, move || app.sessions_of(&app.followers(affected))).await;
        let changes = match looked {
            Ok(sessions) => sessions.into_iter().map(SessionChange::Refresh).collect(),
            Err(failure) => return failure.into(),
        };
        let acts = Acts { events: Vec::new(), by };
        self.apply_in_steps((changes, acts), Receipt::nothing(), false, worker, now).await
    }

    async fn follow_kept_in_steps(
        self: &Arc<Self>,
        affected: Affected,
        worker: Worker,
    ) -> Result<(), Failure> {
        let app = self.clone();
        let begin = move || {
            app.follow_beside_sessions(affected);
            let Followers { mut orgs, users } = app.followers(affected);
            orgs.retain(|org| !app.broker.kept_in(*org, 0, 1).is_empty());
            (orgs, users)
        };
        let (orgs, users) = self.do_some(worker, Duration::ZERO, begin).await?;
        for org in orgs {
            let mut after = Some(0);
            while let Some(last) = after {
                let app = self.clone();
                let step = move || {
                    let page = app.broker.kept_in(org, last, limits::EXPIRY_STEP);
                    let last = page.last().map(|session| session.number());
                    app.follow_kept_sessions(page);
                    last
                };
                after = self.do_some(worker, Duration::ZERO, step).await?;
            }
        }
        for some in users.chunks(limits::ENDED_STEP) {
            let (app, some) = (self.clone(), some.to_vec());
            let step = move || {
                let kept = |id| app.broker.kept_sessions_of(&Principal::User(id));
                app.follow_kept_sessions(some.into_iter().flat_map(kept).collect());
            };
            self.do_some(worker, Duration::ZERO, step).await?;
        }
        Ok(())
    }
}
