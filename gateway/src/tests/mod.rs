//! The gateway's rooms against real servers, started by `cargo dev test`.

mod blocks;
mod business;
mod content;
mod conversations;
mod devices;
mod edge;
mod export;
mod forged;
pub mod gateway;
mod handshakes;
mod history;
mod history_cold;
mod internal;
mod membership;
#[path = "../../../shared/tests/input/fuzz/mutation.rs"]
pub mod mutation;
mod newer;
pub mod outages;
mod outbox;
pub mod place;
mod presence;
mod profiles;
mod proxy;
mod quotas;
mod receipts;
mod removal;
mod rest;
mod returning;
mod revocations;
mod tickets;
mod typing;
