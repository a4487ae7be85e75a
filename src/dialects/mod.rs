//! Other words for the same sessions and principals: NetApp Element's and Cognite's. They find out
//! who asks, and call what TR50's handlers call.

pub mod cognite;
pub mod element;
