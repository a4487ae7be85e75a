//! Reading one value of the configuration, from TOML or from an environment variable.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use base::{Origins, Trusted};
use store::Durability;
use tracing::level_filters::LevelFilter;

use super::{ClientAuth, ClientLogin, LogFormat};

/// A value as it was written.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// In the file.
    Toml(&'a toml::Value),
    /// In a variable.
    Text(&'a str),
}

impl Raw<'_> {
    /// Reads it as a `T`; none when it is something else.
    pub(super) fn read<T: Value>(self) -> Option<T> {
        match self {
            Self::Toml(value) => T::from_toml(value),
            Self::Text(text) => T::from_text(text.trim()),
        }
    }
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(value) => value.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// A type that a key of the configuration can have.
pub(super) trait Value: Sized {
    /// What may be written, to follow "must be".
    const EXPECTED: &'static str;

    /// Reads the text of a variable.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads a value of the file; most types are strings there.
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }
}

macro_rules! whole_numbers {
    ($($Type:ty),*) => {$(
        impl Value for $Type {
            const EXPECTED: &'static str = "a whole number, 0 or more";

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn from_toml(value: &toml::Value) -> Option<Self> {
                value.as_integer()?.try_into().ok()
            }
        }
    )*};
}

whole_numbers!(u32, u64, usize);

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }
}

impl Value for Option<PathBuf> {
    const EXPECTED: &'static str = "a path, or \"\" for none";

    fn from_text(text: &str) -> Option<Self> {
        Some((!text.is_empty()).then(|| text.into()))
    }
}

macro_rules! numbers_or_auto {
    ($($Type:ty),*) => {$(
        impl Value for Option<$Type> {
            const EXPECTED: &'static str = "a whole number, 0 or more, or \"auto\"";

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    "auto" => Some(None),
                    _ => text.parse().ok().map(Some),
                }
            }

            fn from_toml(value: &toml::Value) -> Option<Self> {
                match value.as_integer() {
                    Some(number) => number.try_into().ok().map(Some),
                    None => Self::from_text(value.as_str()?),
                }
            }
        }
    )*};
}

numbers_or_auto!(u32, u64);

impl Value for Option<SocketAddr> {
    const EXPECTED: &'static str = "an address and port such as \"127.0.0.1:1883\" or \
         \"[::]:1883\", or \"none\" to turn the listener off";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "" | "none" => Some(None),
            _ => text.parse().ok().map(Some),
        }
    }
}

impl Value for Durability {
    const EXPECTED: &'static str = "\"os\" or \"disk\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "os" => Some(Self::Os),
            "disk" => Some(Self::Disk),
            _ => None,
        }
    }
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Value for ClientAuth {
    const EXPECTED: &'static str = "\"none\", \"optional\" or \"required\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::ByCa),
            "none" => Some(Self::None),
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

impl Value for ClientLogin {
    const EXPECTED: &'static str = "\"none\", \"thing\" or \"user\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "thing" => Some(Self::Thing),
            "user" => Some(Self::User),
            _ => None,
        }
    }
}

impl Value for LevelFilter {
    const EXPECTED: &'static str = "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn from_text(text: &str) -> Option<Self> {
        // The type's own parser also takes numbers and the empty text.
        text.chars().all(|c| c.is_ascii_lowercase()).then(|| text.parse().ok())?
    }
}

impl Value for Origins {
    const EXPECTED: &'static str =
        "a list of origins such as [\"https://app.example\", \"http://localhost:3000\"] or [\"*\"]";

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text.split(',')).ok()
    }

    fn from_toml(value: &toml::Value) -> Option<Self> {
        let texts: Option<Vec<_>> = value.as_array()?.iter().map(toml::Value::as_str).collect();
        Self::parse(texts?.into_iter()).ok()
    }
}

impl Value for Trusted {
    const EXPECTED: &'static str =
        "a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"]";

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text.split(',').map(str::trim).filter(|part| !part.is_empty()))
    }

    fn from_toml(value: &toml::Value) -> Option<Self> {
        let texts = value.as_array()?.iter().map(toml::Value::as_str);
        Self::parse(texts.collect::<Option<Vec<_>>>()?)
    }
}
