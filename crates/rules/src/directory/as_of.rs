//! Sessions that lived at a time: filtered, sorted and counted one by one, for most of them are in
//! no index any more.

use base::Timestamp;

use super::query::{Common, GroupBy, SortKey};
use super::session::{Session, Who};

/// A place in an order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// By a time.
    Time(Timestamp),
    /// By a number.
    Number(u64),
    /// By a name.
    Name(Box<str>),
}

impl Session {
    /// Whether it lived at a time, and was in the organisation where it is or was last.
    pub fn was_here(&self, at: Timestamp) -> bool {
        let ended = self.end.get().is_some_and(|end| end.at <= at);
        !ended && self.with_context(|context| context.since) <= at
    }

    /// Its place in a listing.
    pub fn rank(&self, by: SortKey) -> Rank {
        match by {
            SortKey::StartTime => Rank::Time(self.started()),
            SortKey::LastAccessed => Rank::Time(self.last_accessed()),
            SortKey::LastSeen => Rank::Time(self.last_active()),
            SortKey::CommandCount => Rank::Number(self.command_count()),
            SortKey::WhoAmI => Rank::Name(self.who().name().into()),
            SortKey::EndTime => Rank::Time(self.end.get().map_or(Timestamp::NEVER, |end| end.at)),
        }
    }
}

impl GroupBy {
    /// What a session has in common with others of its group.
    pub fn common(self, session: &Session) -> Common {
        match self {
            Self::Protocol => Common::Word(session.conn().protocol.as_str()),
            Self::Reason => {
                session.end().map_or(Common::Nothing, |end| Common::Word(end.reason.as_str()))
            }
            Self::Application => match session.who() {
                Who::Application { application, .. } => {
                    Common::Application(application.name.as_str().into())
                }
                Who::User(_) => Common::Nothing,
            },
            Self::Definition => session
                .with_context(|context| context.definition)
                .map_or(Common::Nothing, Common::Definition),
        }
    }
}
