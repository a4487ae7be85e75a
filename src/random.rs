//! Random bytes from the operating system, for ids, salts and tokens.

use base::{Code, Failure};

/// The system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom(#[from] getrandom::Error);

impl From<NoRandom> for Failure {
    fn from(error: NoRandom) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a command failed");
        Self::new(Code::INTERNAL, "The server has no random numbers.")
    }
}

/// Random bytes.
///
/// # Errors
///
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
