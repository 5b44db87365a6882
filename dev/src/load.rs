//! `cargo dev load`: servers are started, users made, client processes let loose, everything is measured from outside,
//! and what was accepted is looked for in the database and with its readers.

mod calls;
pub mod chat;
mod client_process;
mod comparison;
pub mod cost;
pub mod desk;
mod gateway_sql;
mod generator;
pub mod machine;
mod marks;
pub mod outcome;
pub mod peer;
mod progress;
mod proof;
mod rude;
pub mod run;
mod sampler;
pub mod scenario;
mod search;
pub mod setting;
pub mod statements;
pub mod subject;
mod syncs;
mod window;
pub mod workload;
mod writes;
