//! The table of [`close_after_reply`](super): what is asked, by whom, and what becomes of which session.

use super::PASSWORD;
use support::{TOKEN, failure};

const DONE: &str = r#"{"success":true}"#;

/// A command, its parameters or nothing, and its reply.
pub(super) type Asked = (&'static str, &'static str, &'static str);

pub(super) const PING: Asked = ("diag.ping", "", DONE);

/// User and password, or thing key and token.
pub(super) type Login = (&'static str, &'static str);

/// How a session ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    LoggedOut,
    Revoked,
}

/// What is asked.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// The commands of one request.
    Tr50(&'static [Asked]),
    /// A request in another dialect, on a connection of its own: its head without the length, its
    /// body, and status and beginning of the answer.
    Http(&'static str, &'static str, u16, &'static str),
}

/// A session over TCP beside the asker's.
#[derive(Clone, Copy)]
pub(super) struct Other {
    pub login: Login,
    /// What it does first.
    pub before: &'static [Asked],
    /// How it ends; none: it goes on.
    pub end: Option<End>,
}

/// A row. Its texts can have the placeholders of [`Names`](super::Names).
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub what: &'static str,
    /// Who there is beside the demo's, in the form of `fixtures/demo.toml`.
    pub there: &'static [&'static str],
    pub asker: Login,
    /// What the asker does first.
    pub before: &'static [Asked],
    pub ask: Ask,
    /// How the asker's session ends; none: it goes on.
    pub end: Option<End>,
    /// What the asker does next if it goes on.
    pub after: Asked,
    pub other: Option<Other>,
}

/// What a row leaves out.
const ROW: Row = Row {
    what: "",
    there: &[],
    asker: THING,
    before: &[],
    ask: Ask::Tr50(&[PING]),
    end: None,
    after: PING,
    other: None,
};

const USER: Login = ("<n>@basicorg.example", PASSWORD);
const VICTIM: Login = ("v-<n>@basicorg.example", PASSWORD);
const THING: Login = ("<n>", TOKEN);
const THING_OF_APP: Login = ("<n>", "the-token-of-<n>");
const OTHER_THING_OF_APP: Login = ("o-<n>", "the-token-of-<n>");

/// The organisation of a run of its own: what changes in one concerns all who are there.
pub(super) const AN_ORG: &str = "[[org]]\nkey = \"<org>\"\nslug = \"<org>\"\nparent = \"SYSTEM\"\n";
const ONE_BELOW: &str = "[[org]]\nkey = \"b-<n>\"\nslug = \"b-<n>\"\nparent = \"<org>\"\n";
const A_USER: &str = r#"
[[user]]
id = "<hex>"
email = "<n>@basicorg.example"
password_hash = "<hash>"
home = "<org>"
"#;
const A_VICTIM: &str = r#"
[[user]]
email = "v-<n>@basicorg.example"
password_hash = "<hash>"
home = "<org>"
"#;
const SUPER_ADMIN: &str = "super_admin = true\n";
const ADMIN_HERE: &str = "[[user.membership]]\norg = \"<org>\"\norg_admin = true\n";
const ALSO_IN_YORK: &str = "[[user.membership]]\norg = \"YorkOrg\"\n";
const A_ROLE: &str = r#"
[[role]]
key = "<n>"
org = "<org>"
permissions = ["role.update", "thing.find"]
"#;
const AN_APP: &str = r#"
[[application]]
name = "<n>"
org = "<org>"
token = "the-token-of-<n>"
token_name = "<n>"
auto_register = true
"#;
const APP_ADMIN: &str = "org_admin = true\n";
const APP_ROLE: &str = "roles = [\"<n>\"]\n";

const TO_YORK: Asked = ("session.org.switch", r#"{"key":"YorkOrg"}"#, DONE);
const TO_BELOW: Asked = ("session.org.switch", r#"{"key":"b-<n>"}"#, DONE);
/// Another session of the asker's login.
const SECOND: Other = Other { login: USER, before: &[], end: Some(End::Revoked) };
/// A session of somebody else.
const VICTIMS: Other = Other { login: VICTIM, ..SECOND };

/// Who is a super administrator only loses the session in an organisation that is not the own, and
/// for the password all others.
const FLAG_AND_PASSWORD: Asked = (
    "user.update",
    r#"{"isSuperAdmin":false,"password":"second-password","oldPassword":"first-password"}"#,
    DONE,
);
/// Cognite's request and Element's.
const REVOKE: &str = "POST /api/v1/orgs/<org>/principals/<hex>/sessions/revoke HTTP/1.1\r\n\
                      Authorization: Bearer <id>";
const ELEMENT: &str = "POST /json-rpc/12.3 HTTP/1.1\r\nAuthorization: Basic <basic>";

/// For many at once in one organisation.
pub(super) const IN_A_CROWD: Row = Row {
    what: "app.delete of the own application, at once with others",
    there: &[AN_APP, APP_ADMIN],
    asker: THING_OF_APP,
    ask: Ask::Tr50(&[("app.delete", r#"{"name":"<n>"}"#, DONE)]),
    end: Some(End::Revoked),
    ..ROW
};

/// All other rows.
pub(super) const ROWS: &[Row] = &[
    Row {
        what: "session.end of the own session",
        ask: Ask::Tr50(&[("session.end", "", DONE)]),
        end: Some(End::LoggedOut),
        ..ROW
    },
    Row {
        what: "session.end of the own session by its handle",
        ask: Ask::Tr50(&[("session.end", r#"{"ref":"<ref>"}"#, DONE)]),
        end: Some(End::LoggedOut),
        ..ROW
    },
    Row {
        what: "session.end of the own session by its id",
        ask: Ask::Tr50(&[("session.end", r#"{"id":"<id>"}"#, DONE)]),
        end: Some(End::LoggedOut),
        ..ROW
    },
    Row {
        what: "session.end of another session of the same login",
        ask: Ask::Tr50(&[("session.end", r#"{"ref":"<other>"}"#, DONE)]),
        other: Some(Other { login: THING, before: &[], end: Some(End::LoggedOut) }),
        ..ROW
    },
    Row {
        what: "session.end, and commands behind it",
        ask: Ask::Tr50(&[
            ("session.end", "", DONE),
            PING,
            ("attribute.publish", r#"{"thingKey":"<n>","key":"a","value":"b"}"#, DONE),
            ("no.such", "", failure!(-95003, "Unknown command \\\"no.such\\\".")),
        ]),
        end: Some(End::LoggedOut),
        ..ROW
    },
    Row {
        what: "user.update of the own flag and password, elsewhere",
        there: &[A_USER, SUPER_ADMIN],
        asker: USER,
        before: &[TO_YORK],
        ask: Ask::Tr50(&[FLAG_AND_PASSWORD]),
        end: Some(End::Revoked),
        other: Some(SECOND),
        ..ROW
    },
    Row {
        what: "user.update of the own flag and password, elsewhere, and commands behind it",
        there: &[A_USER, SUPER_ADMIN],
        asker: USER,
        before: &[TO_YORK],
        ask: Ask::Tr50(&[FLAG_AND_PASSWORD, PING, ("session.end", "", DONE)]),
        end: Some(End::Revoked),
        other: Some(SECOND),
        ..ROW
    },
    Row {
        // A request with mail in it is one that is waited for aside.
        what: "user.update of the own flag and password, elsewhere, and mail behind it",
        there: &[A_USER, SUPER_ADMIN],
        asker: USER,
        before: &[TO_YORK],
        ask: Ask::Tr50(&[
            FLAG_AND_PASSWORD,
            (
                "mailbox.send",
                r#"{"thingKey":"nobody","command":"x"}"#,
                failure!(-90008, "Thing \\\"nobody\\\" was not found."),
            ),
        ]),
        end: Some(End::Revoked),
        other: Some(SECOND),
        ..ROW
    },
    Row {
        what: "user.update of the own flag, elsewhere",
        there: &[A_USER, SUPER_ADMIN],
        asker: USER,
        before: &[TO_YORK],
        ask: Ask::Tr50(&[("user.update", r#"{"isSuperAdmin":false}"#, DONE)]),
        end: Some(End::Revoked),
        other: Some(Other { end: None, ..SECOND }),
        ..ROW
    },
    Row {
        what: "user.update of the own home, away from where the session is",
        there: &[A_USER, ALSO_IN_YORK],
        asker: USER,
        ask: Ask::Tr50(&[("user.update", r#"{"defaultOrgId":"533ef300310046187700007f"}"#, DONE)]),
        end: Some(End::Revoked),
        ..ROW
    },
    Row {
        what: "user.update of the own home and password",
        there: &[A_USER, ALSO_IN_YORK],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.update",
            concat!(
                r#"{"defaultOrgId":"533ef300310046187700007f","#,
                r#""password":"second-password","oldPassword":"first-password"}"#
            ),
            DONE,
        )]),
        end: Some(End::Revoked),
        other: Some(Other { before: &[TO_YORK], ..SECOND }),
        ..ROW
    },
    Row {
        what: "user.update of the own password",
        there: &[A_USER],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.update",
            r#"{"password":"second-password","oldPassword":"first-password"}"#,
            DONE,
        )]),
        other: Some(SECOND),
        ..ROW
    },
    Row {
        what: "user.update of somebody's flag, who is elsewhere",
        there: &[A_USER, SUPER_ADMIN, A_VICTIM, SUPER_ADMIN],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.update",
            r#"{"emailAddress":"v-<n>@basicorg.example","isSuperAdmin":false}"#,
            DONE,
        )]),
        other: Some(Other { before: &[TO_YORK], ..VICTIMS }),
        ..ROW
    },
    Row {
        what: "user.update of somebody's password",
        there: &[A_USER, ADMIN_HERE, A_VICTIM],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.update",
            r#"{"emailAddress":"v-<n>@basicorg.example","password":"second-password"}"#,
            DONE,
        )]),
        other: Some(VICTIMS),
        ..ROW
    },
    Row {
        what: "user.delete of somebody",
        there: &[A_USER, ADMIN_HERE, A_VICTIM],
        asker: USER,
        ask: Ask::Tr50(&[("user.delete", r#"{"emailAddress":"v-<n>@basicorg.example"}"#, DONE)]),
        other: Some(VICTIMS),
        ..ROW
    },
    Row {
        what: "user.delete of oneself, which nobody can",
        there: &[A_USER, ADMIN_HERE],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.delete",
            r#"{"emailAddress":"<n>@basicorg.example"}"#,
            failure!(-95030, "Nobody can delete themselves."),
        )]),
        ..ROW
    },
    Row {
        // No change of a role ends a session: the way into an organisation is no permission.
        what: "role.update of the own role",
        there: &[A_ROLE, AN_APP, APP_ROLE],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[("role.update", r#"{"key":"<n>","perms":"thing.find"}"#, DONE)]),
        after: (
            "role.update",
            r#"{"key":"<n>","perms":"thing.find"}"#,
            failure!(-95006, "<n> has no permission for role.update in this organisation."),
        ),
        other: Some(Other { login: OTHER_THING_OF_APP, before: &[], end: None }),
        ..ROW
    },
    Row {
        what: "app.update of the own token",
        there: &[AN_APP, APP_ADMIN],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[("app.update", r#"{"name":"<n>","token":"another-token-of-<n>"}"#, DONE)]),
        end: Some(End::Revoked),
        other: Some(Other { login: OTHER_THING_OF_APP, ..SECOND }),
        ..ROW
    },
    Row {
        what: "app.update of the own right",
        there: &[AN_APP, APP_ADMIN],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[("app.update", r#"{"name":"<n>","isOrgAdmin":false}"#, DONE)]),
        after: (
            "app.update",
            r#"{"name":"<n>","isOrgAdmin":true}"#,
            failure!(-95006, "<n> has no permission for app.update in this organisation."),
        ),
        other: Some(Other { login: OTHER_THING_OF_APP, before: &[], end: None }),
        ..ROW
    },
    Row {
        what: "app.delete of the own application",
        there: &[AN_APP, APP_ADMIN],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[("app.delete", r#"{"name":"<n>"}"#, DONE)]),
        end: Some(End::Revoked),
        other: Some(Other { login: OTHER_THING_OF_APP, ..SECOND }),
        ..ROW
    },
    Row {
        what: "app.delete of the own application, and commands behind it",
        there: &[AN_APP, APP_ADMIN],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[
            ("app.delete", r#"{"name":"<n>"}"#, DONE),
            (
                "app.find",
                r#"{"name":"<n>"}"#,
                failure!(-90008, "Application \\\"<n>\\\" was not found."),
            ),
            ("session.end", "", DONE),
        ]),
        end: Some(End::Revoked),
        ..ROW
    },
    Row {
        what: "thing.delete of the own thing",
        there: &[AN_APP, APP_ADMIN],
        asker: THING_OF_APP,
        ask: Ask::Tr50(&[("thing.delete", r#"{"key":"<n>"}"#, DONE)]),
        end: Some(End::Revoked),
        other: Some(Other { login: THING_OF_APP, ..SECOND }),
        ..ROW
    },
    Row {
        what: "org.delete of an organisation that another session is in",
        there: &[ONE_BELOW, A_USER, SUPER_ADMIN],
        asker: USER,
        ask: Ask::Tr50(&[("org.delete", r#"{"key":"b-<n>"}"#, DONE)]),
        other: Some(Other { before: &[TO_BELOW], ..SECOND }),
        ..ROW
    },
    Row {
        what: "org.delete of the organisation where the session is, which nobody can",
        there: &[ONE_BELOW, A_USER, SUPER_ADMIN],
        asker: USER,
        before: &[TO_BELOW],
        ask: Ask::Tr50(&[(
            "org.delete",
            r#"{"key":"b-<n>"}"#,
            failure!(-95030, "Organisation \\\"b-<n>\\\" is the session's current one."),
        )]),
        other: Some(Other { end: None, ..SECOND }),
        ..ROW
    },
    Row {
        what: "user.org.remove of oneself",
        there: &[A_USER, ADMIN_HERE, ALSO_IN_YORK],
        asker: USER,
        ask: Ask::Tr50(&[("user.org.remove", r#"{"emailAddress":"<n>@basicorg.example"}"#, DONE)]),
        end: Some(End::Revoked),
        other: Some(Other { before: &[TO_YORK], end: None, ..SECOND }),
        ..ROW
    },
    Row {
        // Who may change a membership is where it counts: the own session stays.
        what: "user.org.update of oneself, with a session below that it let in",
        there: &[ONE_BELOW, A_USER, ADMIN_HERE],
        asker: USER,
        ask: Ask::Tr50(&[(
            "user.org.update",
            r#"{"emailAddress":"<n>@basicorg.example","isOrgAdmin":false}"#,
            DONE,
        )]),
        after: (
            "user.org.update",
            r#"{"emailAddress":"<n>@basicorg.example","isOrgAdmin":true}"#,
            failure!(
                -95006,
                "<n>@basicorg.example has no permission for user.org.update in this organisation."
            ),
        ),
        other: Some(Other { before: &[TO_BELOW], ..SECOND }),
        ..ROW
    },
    Row {
        what: "Cognite's revocation of the session that asks for it",
        there: &[A_USER, ADMIN_HERE],
        asker: USER,
        ask: Ask::Http(REVOKE, r#"{"items":[{"id":"<uuid>"}]}"#, 204, ""),
        end: Some(End::Revoked),
        other: Some(Other { end: None, ..SECOND }),
        ..ROW
    },
    Row {
        what: "Element's DeleteAuthSession of an own session",
        there: &[A_USER],
        asker: USER,
        ask: Ask::Http(
            ELEMENT,
            r#"{"method":"DeleteAuthSession","params":{"sessionID":"<uuid>"},"id":7}"#,
            200,
            r#"{"id":7,"result":{"session":{"#,
        ),
        end: Some(End::LoggedOut),
        other: Some(Other { end: None, ..SECOND }),
        ..ROW
    },
    Row {
        what: "Element's DeleteAuthSessionsByUsername of oneself",
        there: &[A_USER],
        asker: USER,
        ask: Ask::Http(
            ELEMENT,
            r#"{"method":"DeleteAuthSessionsByUsername","params":{},"id":7}"#,
            200,
            r#"{"id":7,"result":{"sessions":[{"#,
        ),
        end: Some(End::LoggedOut),
        other: Some(Other { end: Some(End::LoggedOut), ..SECOND }),
        ..ROW
    },
    Row {
        what: "Element's DeleteAuthSessionsByClusterAdmin of oneself",
        there: &[A_USER],
        asker: USER,
        ask: Ask::Http(
            ELEMENT,
            concat!(
                r#"{"method":"DeleteAuthSessionsByClusterAdmin","#,
                r#""params":{"clusterAdminID":<number>},"id":7}"#
            ),
            200,
            r#"{"id":7,"result":{"sessions":[{"#,
        ),
        end: Some(End::LoggedOut),
        other: Some(Other { end: Some(End::LoggedOut), ..SECOND }),
        ..ROW
    },
];
