//! Texts of TR50 that many tests send and expect.

/// The text of a failure with this code and message, which is written as in JSON.
#[macro_export]
macro_rules! failure {
    ($code:literal, $message:literal) => {
        concat!(
            r#"{"success":false,"errorCodes":["#,
            $code,
            r#"],"errorMessages":[""#,
            $message,
            r#""]}"#
        )
    };
}

/// A login of BasicOrg's administrator.
pub const OPERATOR_LOGIN: &str = concat!(
    r#"{"auth":{"command":"api.authenticate","params":{"#,
    r#""username":"operator@basicorg.example","password":"demo-operator-password"}}}"#
);

/// The failure of a refused login.
pub const LOGIN_REFUSED: &str =
    failure!(-95007, "Login refused: user name, password, thing key or token is not right.");

/// The failure of a request without a session.
pub const SESSION_MISSING: &str = failure!(
    -99999,
    "Authentication session is invalid: Error: Session id is missing; \
     send `auth` or the sessionId header."
);

/// The failure of a request with the id of a session that is not there.
pub const SESSION_GONE: &str = failure!(
    -90000,
    "Authentication session is invalid: Error: Session is unknown, has ended or has expired."
);

/// What a login is answered with that was refused.
pub fn login_refused() -> String {
    format!("{},\"auth\":{LOGIN_REFUSED}}}", LOGIN_REFUSED.trim_end_matches('}'))
}

/// The session id in the reply to a login.
///
/// # Panics
///
/// If there is none.
pub fn session_id(reply: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(reply).expect("JSON");
    let id = value["auth"]["params"]["sessionId"].as_str();
    id.unwrap_or_else(|| panic!("no session id: {reply}")).to_owned()
}

/// Compares a reply; an `…` stands for anything.
///
/// # Panics
///
/// If it is another one.
pub fn assert_reply(reply: &str, expected: &str) {
    let matches = match expected.split_once('…') {
        Some((start, end)) => reply.starts_with(start) && reply.ends_with(end),
        None => reply == expected,
    };
    assert!(matches, "{reply}\nis not\n{expected}");
}
