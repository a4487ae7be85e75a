//! Why a login is refused, in one word: in the trail, in metrics and in the log.

macro_rules! causes {
    ($($name:ident = $word:literal, $outcome:ident, $doc:literal;)*) => {
        /// Why a login is refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum LoginCause {
            $(#[doc = $doc] $name,)*
        }

        impl LoginCause {
            /// All of them, in their order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// What became of the login: `refused`, `locked`, `rate`, `busy` or `failed`.
            pub const fn outcome(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($outcome),)*
                }
            }

            /// What it means, for people.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $doc,)*
                }
            }
        }
    };
}

causes! {
    WrongPassword = "wrong_password", refused, "the password is wrong";
    SecondFactor = "second_factor", refused,
        "the password is right, and the code of the second factor, or an API token, is missing";
    WrongCode = "wrong_code", refused,
        "the password is right, and the code of the second factor is wrong or was used before";
    UnknownUser = "unknown_user", refused, "there is no such user";
    UnknownToken = "unknown_token", refused, "there is no application with this token";
    TokenExpired = "token_expired", refused, "the token has expired";
    TokenDisabled = "token_disabled", refused, "the token is disabled";
    UnknownThing = "unknown_thing", refused,
        "there is no such thing, and the application registers none";
    BadThingKey = "bad_thing_key", refused, "what was sent as the thing's key can't be one";
    NoAccess = "no_access", refused, "it may not enter the organisation, or not by this listener";
    Banned = "banned", refused, "it is disabled: the user, the thing or its application";
    Certificate = "certificate", refused, "the client's certificate names somebody else";
    NoCredentials = "no_credentials", refused, "name, password, thing key or token is missing";
    BadClientId = "bad_client_id", refused, "MQTT: the client id is empty, too long or ill-formed";
    BadAuthMethod = "bad_auth_method", refused,
        "MQTT 5: it asks for an authentication method, of which there is none here";
    BadWill = "bad_will", refused, "MQTT: the topic of the will is not one to publish to";
    Malformed = "malformed", refused,
        "MQTT: CONNECT is malformed, or of a version that is not spoken here";
    Locked = "locked", locked, "too many logins failed before; nothing was checked";
    Busy = "busy", busy, "the server has too much to do";
    Rate = "rate", rate, "its user or application has logged in more often than it may";
    Full = "full", busy, "there is no room for another session or connection";
    UnknownSession = "unknown_session", refused,
        "the id is that of a session that has ended, or never was";
    Failed = "failed", failed, "the server failed";
}
