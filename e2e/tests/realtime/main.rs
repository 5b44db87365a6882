//! What participants see of each other while it lasts, what they have not read, and what their phones are told.

mod mute;
mod notifications;
mod phone;
mod presence;
mod receipts;
mod registrations;
mod typing;
mod unread;
