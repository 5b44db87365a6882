//! Messages from one person to others: delivered, ordered, kept once, and nobody else's business.

mod access;
mod blocks;
mod delivery;
mod everywhere;
mod groups;
mod history;
mod order;
mod removal;
mod repeats;
mod resume;
