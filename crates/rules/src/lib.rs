//! The rules of a TR50 server: who there is and what they may do ([`identity`]), and which sessions
//! live ([`directory`]).
//!
//! They know no socket, no clock, no disk and no randomness: `now`, ids and salts are arguments.
//! Everybody may read; who changes something needs a writer ([`identity::IdentityWriter`],
//! [`directory::DirectoryWriter`]), of which the server has one each.

pub mod directory;
pub mod identity;
