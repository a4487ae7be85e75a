//! Errors of methods: `{"code":500,"name":…,"message":…}` with HTTP status 200
//! (`docs/protocol/element.md` B4).

use base::{Code, Failure};
use serde::Serialize;
use store::StoreError;

/// The code of every error of a method. Clients tell errors apart by their names; the SDK for
/// Python takes code 400 for a broken connection.
const CODE: u16 = 500;

const TRY_AGAIN: &str = "The server is busy; try again.";

/// A name of errors.
#[derive(Debug)]
pub(super) struct NameInfo {
    /// What programs compare.
    pub name: &'static str,
    /// When it comes.
    pub meaning: &'static str,
    /// Whose word it is.
    pub source: &'static str,
}

macro_rules! names {
    ($($name:ident = $text:literal, $meaning:literal, $source:literal;)*) => {
        $(#[doc = $meaning] pub(super) const $name: &str = $text;)*

        /// Every name of an error that this server sends.
        pub(super) const NAMES: &[NameInfo] =
            &[$(NameInfo { name: $text, meaning: $meaning, source: $source },)*];
    };
}

names! {
    UNKNOWN_METHOD = "xUnknownAPIMethod",
        "There is no such method; the message is `method=` and its name.",
        "`docs/protocol/element.md` B4";
    PERMISSION_DENIED = "xPermissionDenied",
        "The caller may not do this.", "`docs/protocol/element.md` B4";
    UNRECOGNIZED_ENUM = "xUnrecognizedEnumString",
        "A parameter is none of the words it may be; the message is the bad value.",
        "`docs/protocol/element.md` B4";
    INVALID_PARAMETER = "xInvalidParameter",
        "A parameter is missing, or has an impossible value.", "`docs/protocol/element.md` B4";
    INVALID_PARAMETER_TYPE = "xInvalidParameterType",
        "A parameter is of the wrong type.", "`docs/protocol/element.md` B4";
    INVALID_REQUEST = "xInvalidAPIParameter",
        "The request is no request: not JSON, a batch, without a method, with parameters by position.",
        "`docs/protocol/element.md` B4, use here ours";
    EXCEEDED_LIMIT = "xExceededLimit",
        "The answer would be longer than one may be, or more sessions would end than may at once; nothing has ended.",
        "`docs/protocol/element.md` B4";
    NO_SUCH_SESSION = "xAuthSessionDoesNotExist",
        "There is no such live session, or the caller may not see it.", "ours";
    NO_SUCH_ADMIN = "xClusterAdminIDDoesNotExist",
        "There is no user with this number, or the caller may not see them.", "ours";
    BUSY = "xDBVersionMismatch",
        "The server has too much to do; try again. With HTTP status 503 and Retry-After.",
        "`docs/protocol/element.md` B1";
    INTERNAL = "xInternalError",
        "The server failed, and has written why into its log.", "ours";
}

/// Why a method failed.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Error {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// A sentence for people, or what the name promises.
    pub message: String,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: u16,
    name: &'static str,
    message: &'a str,
}

impl Error {
    /// A failure.
    pub(super) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into() }
    }

    /// The caller lacks a right.
    pub(super) fn denied(message: &str) -> Self {
        Self::new(PERMISSION_DENIED, message)
    }

    /// There is too much to do; the failure says of what.
    pub(super) fn busy(why: &Failure) -> Self {
        Self::new(BUSY, format!("{TRY_AGAIN} {}", why.message))
    }

    /// The code of TR50 that means the same, by which it is counted.
    pub(super) fn code(&self) -> Code {
        match self.name {
            UNKNOWN_METHOD => Code::UNKNOWN_COMMAND,
            PERMISSION_DENIED => Code::PERMISSION_DENIED,
            UNRECOGNIZED_ENUM | INVALID_PARAMETER | INVALID_PARAMETER_TYPE => {
                Code::PARAMETER_INVALID
            }
            INVALID_REQUEST => Code::MALFORMED,
            EXCEEDED_LIMIT => Code::REPLY_TOO_LARGE,
            NO_SUCH_SESSION | NO_SUCH_ADMIN => Code::NOT_FOUND,
            BUSY => Code::BUSY,
            _ => Code::INTERNAL,
        }
    }

    /// The member `error`.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let detail = Detail { code: CODE, name: self.name, message: &self.message };
        serde_json::to_vec(&detail).expect("a number and two texts")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Code::BUSY => Self::busy(&failure),
            Code::STORE_UNAVAILABLE => Self::new(BUSY, TRY_AGAIN),
            _ => Self::new(INTERNAL, failure.message),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Failure::from(error).into()
    }
}
