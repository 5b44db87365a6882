//! The gateway's rooms against real servers, started by `cargo dev test`.

mod conversations;
mod devices;
pub mod gateway;
mod history;
pub mod outages;
mod outbox;
pub mod place;
mod presence;
mod receipts;
mod rest;
mod typing;
