//! Other vendors' APIs for the same sessions and principals: NetApp Element's and Cognite's. They
//! authenticate the caller, and call what TR50's handlers call.

pub mod cognite;
pub mod credentials;
pub mod element;
