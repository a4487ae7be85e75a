//! Other vendors' APIs for the same sessions and principals, NetApp Element's and Cognite's, which
//! authenticate the caller, and call what TR50's handlers call; and the console, whose pages are made
//! of TR50's commands.

pub mod cognite;
pub mod console;
pub mod credentials;
pub mod element;
