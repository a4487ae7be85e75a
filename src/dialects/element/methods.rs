//! The table of methods: name, parameters, result, who may use it, and the code
//! (`docs/protocol/element.md` B2). `GetAPI` and `docs/element.md` are made from it.

use std::sync::Arc;

use rules::directory::Session;
use serde_json::json;

use super::auth::Caller;
use super::error::Error;
use super::request::Params;
use super::sessions::Wanted;
use super::{admins, sessions, timeout};
use crate::app::App;

/// The version that GetAPI says clients should use; the methods for sessions came with 12.0.
const CURRENT_VERSION: &str = "12.3";

/// The versions that a client may insist on. All have the same methods here.
const VERSIONS: &[&str] =
    &["7.0", "8.0", "9.0", "10.0", "11.0", "11.7", "12.0", "12.2", CURRENT_VERSION];

/// A method of the API: everything that is known of it, in one place.
pub(super) struct Method {
    /// Its name, in exactly this case.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Who may use it.
    pub right: &'static str,
    /// What is under `result`.
    pub result: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// What it does, in code.
    pub handler: fn(&Call<'_>, &Params<'_>) -> Result<Task, Error>,
}

impl Method {
    /// Whether its use is in the trail, if it concerns others.
    pub(super) fn is_act(&self) -> bool {
        self.name.starts_with("Delete") || self.name.starts_with("Set")
    }
}

/// A parameter of a method.
pub(super) struct Param {
    /// Its name, in exactly this case.
    pub name: &'static str,
    /// Its type.
    pub expected: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

/// A call of a method.
pub(super) struct Call<'a> {
    /// The server.
    pub app: &'a Arc<App>,
    /// Who calls.
    pub caller: &'a Caller,
}

/// What is to be done for a call. Methods look up and decide; what takes time is done outside.
pub(super) enum Task {
    /// Nothing more: this is the result.
    Answer(Vec<u8>),
    /// List sessions.
    List(Wanted),
    /// List users.
    ListAdmins,
    /// End this session.
    EndOne(Arc<Session>),
    /// End these sessions.
    End(Vec<Arc<Session>>),
    /// Set the idle time of sessions, in seconds, 0 for none.
    SetTimeout(u64),
}

const SESSION_ID: Param =
    Param { name: "sessionID", expected: "UUID", required: true, doc: "The session." };

const CLUSTER_ADMIN_ID: Param =
    Param { name: "clusterAdminID", expected: "integer", required: true, doc: "The user." };

const USERNAME: Param = Param {
    name: "username",
    expected: "string",
    required: false,
    doc: "A user's e-mail address, or a thing's key; without it, the caller.",
};

const AUTH_METHOD: Param = Param {
    name: "authMethod",
    expected: "`Cluster`, `Ldap` or `Idp`",
    required: false,
    doc: "`Cluster`: the user of this name; `Idp`: the things of this name; `Ldap`: nobody; without it, users and things.",
};

const TIMEOUT: Param = Param {
    name: "timeout",
    expected: "string",
    required: false,
    doc: "HH:mm:ss; at least a minute and at most `sessions.max_age_s`. Without it, or zero: sessions do not expire when they are idle.",
};

const OTHERS: &str = "everybody for their own; of others, administrators and super operators";
const END_OTHERS: &str = "everybody for their own; of others, administrators";

/// Every method, by name.
pub(super) const METHODS: &[Method] = &[
    Method {
        name: "DeleteAuthSession",
        doc: "Ends a session at once: its connection closes, over HTTP its next command is refused.",
        right: END_OTHERS,
        result: "`session`, as it was",
        params: &[SESSION_ID],
        handler: sessions::delete,
    },
    Method {
        name: "DeleteAuthSessionsByClusterAdmin",
        doc: "Ends all sessions of a user at once.",
        right: END_OTHERS,
        result: "`sessions` that it ended, as they were",
        params: &[CLUSTER_ADMIN_ID],
        handler: sessions::delete_by_admin,
    },
    Method {
        name: "DeleteAuthSessionsByUsername",
        doc: "Ends all sessions of a user, or of things with a key, at once.",
        right: END_OTHERS,
        result: "`sessions` that it ended, as they were",
        params: &[USERNAME, AUTH_METHOD],
        handler: sessions::delete_by_username,
    },
    Method {
        name: "GetAPI",
        doc: "Shows the versions and the methods of this API.",
        right: "everybody",
        result: "`currentVersion`, `supportedVersions`, and the methods under the current version",
        params: &[],
        handler: api,
    },
    Method {
        name: "GetCurrentClusterAdmin",
        doc: "Shows the caller.",
        right: "everybody",
        result: "`clusterAdmin`",
        params: &[],
        handler: admins::current,
    },
    Method {
        name: "GetLoginSessionInfo",
        doc: "Shows after which idle time sessions that start now expire.",
        right: "administrators and super operators",
        result: "`loginSessionInfo` with `timeout`: H:mm:ss without leading zeros; 0:00 is never",
        params: &[],
        handler: timeout::show,
    },
    Method {
        name: "ListActiveAuthSessions",
        doc: "Lists all live sessions that the caller sees, oldest first.",
        right: "administrators and super operators",
        result: "`sessions`",
        params: &[],
        handler: sessions::list_active,
    },
    Method {
        name: "ListAuthSessionsByClusterAdmin",
        doc: "Lists the live sessions of a user.",
        right: OTHERS,
        result: "`sessions`",
        params: &[CLUSTER_ADMIN_ID],
        handler: sessions::list_by_admin,
    },
    Method {
        name: "ListAuthSessionsByUsername",
        doc: "Lists the live sessions of a user, or of things with a key; none for an unknown name.",
        right: OTHERS,
        result: "`sessions`",
        params: &[USERNAME, AUTH_METHOD],
        handler: sessions::list_by_username,
    },
    Method {
        name: "ListClusterAdmins",
        doc: "Lists the users that the caller sees, by e-mail address.",
        right: "administrators and super operators",
        result: "`clusterAdmins`",
        params: &[],
        handler: admins::list,
    },
    Method {
        name: "SetLoginSessionInfo",
        doc: "Sets after which idle time sessions expire that start from now on. It survives a restart, and wins over `sessions.ttl_s`.",
        right: "super administrators",
        result: "nothing: `{}`",
        params: &[TIMEOUT],
        handler: timeout::set,
    },
];

/// The method with this name.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// `GetAPI`: also how every SDK shakes hands.
fn api(_: &Call<'_>, _: &Params<'_>) -> Result<Task, Error> {
    let names: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    let result = json!({
        "currentVersion": CURRENT_VERSION,
        "supportedVersions": VERSIONS,
        CURRENT_VERSION: names,
    });
    Ok(Task::Answer(result.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(METHODS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn acts_are_types_of_events() {
        let mut acts = METHODS.iter().filter(|method| method.is_act());
        assert!(acts.all(|method| crate::events::ACTS.contains(&method.name)));
    }
}
