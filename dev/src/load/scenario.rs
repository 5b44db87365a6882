//! The scenarios of `cargo dev load`, a file each: what is done to a subject, and what is said about it.

pub mod dm;
