//! Who gets in, and who may do what: tables of tokens, of Origins, and of users, conversations and actions; tickets, logging
//! out, and the interface for services.

mod business;
mod internal;
mod logout;
mod master_key;
mod matrix;
mod origins;
mod tickets;
mod tokens;
