//! The whole server, through its sockets.

mod administration;
mod alerts;
mod audit;
mod backup;
mod bans;
mod broker_shares;
mod browsers;
mod client_certificates;
mod client_tls;
mod clock;
mod close_after_reply;
mod cognite;
mod cognite_sdk;
mod command_line;
mod commands;
mod connection_history;
mod connection_shares;
mod cors;
mod crash;
mod descriptors;
mod downloads;
mod durability;
mod earlier_stores;
mod element;
mod environment;
mod example_programs;
mod files;
mod fleet;
mod full_disk;
mod fuzz_corpora;
mod guesses;
mod help_examples;
mod host_header;
mod http;
mod ill_formed;
mod init;
mod invites;
mod leniency;
mod lists;
mod made_tokens;
mod mailbox;
mod many_ends;
mod memory_budget;
mod metrics;
mod mqtt;
mod mqtt_five;
mod ordinary_clients;
mod ordinary_durable;
mod ordinary_edges;
mod ordinary_exact;
mod ordinary_topics;
mod outside_clients;
mod own_roles;
mod paho;
mod password_changes;
mod pasts;
mod permissions;
mod plaintext;
mod rates;
mod readme;
mod refusals;
mod regressions;
mod revocation;
mod shape;
mod shares;
mod shown_sessions;
mod signals;
mod strangers;
mod tcp;
mod telemetry;
mod thing_topics;
mod things;
mod tls;
mod topic_rights;
mod two_servers;
mod whole_objects;
mod withheld;
mod wrong_doors;

use support::Program;

/// As in the server, which runs in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The server's program, for tests that need a process.
const TR50D: Program = Program(env!("CARGO_BIN_EXE_tr50d"));
