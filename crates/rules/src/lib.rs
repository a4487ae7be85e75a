//! The rules of a TR50 server: [`identity`] (organisations, users, rights), the [`directory`] of
//! sessions, and how texts are [`search`]ed.
//!
//! They know no socket, no clock, no disk and no randomness, so that they can be tested as plain
//! functions: `now`, ids and salts are arguments. Everybody may read; a change needs a writer
//! ([`identity::IdentityWriter`], [`directory::DirectoryWriter`]), of which the server has one
//! each.

pub mod directory;
pub mod identity;
pub mod search;
