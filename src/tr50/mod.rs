//! TR50 itself: envelope, errors, parameters, and the dispatcher that maps names to handlers.
//!
//! [`authenticate`] reads the member `auth`; [`exchange`] is what the edges call, over HTTP
//! [`over_http`]: one request in, one reply out.

pub mod asker;
pub mod authenticate;
pub mod commands;
pub mod dispatch;
pub mod docs;
pub mod envelope;
mod error_message;
pub mod exchange;
pub mod openapi;
pub mod over_http;
pub mod pages;
pub mod params;
pub mod sse;
pub mod step;
pub mod strict;

pub use dispatch::{Pending, Reply};
