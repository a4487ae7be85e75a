//! The whole server, through its sockets.

mod frames;
mod harness;

mod administration;
mod backup;
mod cognite;
mod cognite_sdk;
mod command_line;
mod commands;
mod crash;
mod descriptors;
mod durability;
mod element;
mod example_programs;
mod files;
mod fleet;
mod goodbyes;
mod help_examples;
mod http;
mod init;
mod mailbox;
mod mqtt;
mod mqtt_five;
mod outside_clients;
mod paho;
mod readme;
mod review;
mod server_topics;
mod shape;
mod stores;
mod tcp;
mod telemetry;
mod things;
mod tls;
mod topics;
