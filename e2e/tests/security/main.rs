//! Who gets in, and who may do what: tables of tokens, of Origins, and of users, conversations and actions.

mod matrix;
mod origins;
mod tokens;
