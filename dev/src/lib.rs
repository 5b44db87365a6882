//! Everything behind `cargo dev`: private servers, a fleet of real processes,
//! stand-ins for kaha-main-v3 and for those who bring notifications, and the
//! commands made of them.
//!
//! The end-to-end tests, the demo and the loads use the same parts, so what
//! they exercise is what `cargo dev up` runs. Nothing in production depends on
//! this crate.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal; its output is its purpose")]

mod audit;
mod cargo;
mod chaos;
pub mod commands;
pub mod content_keys;
mod copy;
pub mod demo;
pub mod fleet;
pub mod fleet_file;
pub mod help_page;
pub mod kaha;
pub mod load;
pub mod manifests;
pub mod paths;
mod person;
pub mod ports;
pub mod process;
pub mod push_services;
pub mod servers;
pub mod signals;
mod stand_in;
pub mod store_proxy;
pub mod terminal;
pub mod test_servers;
pub mod wait;
