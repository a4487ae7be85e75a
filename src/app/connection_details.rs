//! What only the task of a connection knows of it, asked for from elsewhere.

use base::limits;
use rules::directory::Session;
use rules::directory::details::{ConnectionDetails, Question};
use tokio::sync::oneshot;
use tokio::time;

use super::App;

impl App {
    /// What the MQTT connection of a session tells of itself; none if there is none, or if it does not
    /// come to answer.
    pub async fn connection_details(&self, session: &Session) -> Option<ConnectionDetails> {
        let outbox = session.outbox().filter(|_| session.link().mqtt_version().is_some())?;
        let (tell, told) = oneshot::channel();
        let asked = outbox.ask(Question::new(move |details| {
            // Who has gone meanwhile does not want to know.
            let _ = tell.send(details);
        }));
        if !asked {
            return None;
        }
        time::timeout(limits::CONNECTION_DETAILS_WAIT, told).await.ok()?.ok()
    }
}
