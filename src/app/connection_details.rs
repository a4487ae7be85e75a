//! What only the task of a connection knows of it, asked for from elsewhere.

use base::limits;
use rules::directory::Session;
use rules::directory::details::{ConnectionDetails, Question};
use tokio::sync::oneshot;
use tokio::time;

use super::App;
use crate::broker::Delivery;

impl App {
    /// What the MQTT connection of a session tells of itself; none if there is none, or if it does not
    /// come to answer. `with_stored`: of messages that wait, those that are in the store only, too.
    pub async fn connection_details(
        &self,
        session: &Session,
        with_stored: bool,
    ) -> Option<ConnectionDetails> {
        let outbox = session.outbox().filter(|_| session.link().mqtt_version().is_some())?;
        let (tell, told) = oneshot::channel();
        let asked = outbox.ask(Question::new(move |details| {
            // Who has gone meanwhile does not want to know.
            let _ = tell.send(details);
        }));
        if !asked {
            return None;
        }
        let mut details: ConnectionDetails =
            time::timeout(limits::CONNECTION_DETAILS_WAIT, told).await.ok()?.ok()?;
        let missing = limits::MESSAGES_SHOWN_MAX.saturating_sub(details.waiting_messages.len());
        if let Some(stored) = details.stored.filter(|_| with_stored && missing > 0) {
            // Without the store, what is in memory is told.
            let stored = self.broker.stored_messages(stored, missing).await.unwrap_or_default();
            details.waiting_messages.extend(stored.iter().map(Delivery::waiting));
        }
        let sent = details.in_flight_messages.iter_mut().filter_map(|sent| sent.about.as_mut());
        let waiting = details.waiting_messages.iter_mut().map(|waiting| &mut waiting.about);
        for about in sent.chain(waiting) {
            about.since = self.clock.shown(about.since);
        }
        Some(details)
    }
}
