//! `cargo dev load`: servers are started, users made, client processes let loose, everything is measured from outside,
//! and what was accepted is looked for in the database and with its readers.

pub mod subject;
