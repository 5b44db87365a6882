//! The load generator: what client processes do, what the machine can do by itself, and what a report looks like.
//!
//! Of the backend it knows what clients know, the wire and its limits; `cargo dev load` starts the servers, makes the users, tells
//! client processes what to do by a [`plan`], and puts together what they say.

pub mod clock;
pub mod floors;
pub mod histogram;
pub mod message;
pub mod pages;
pub mod plan;
pub mod report;
pub mod rude;
pub mod target;
pub mod worker;
