//! The commands of `cargo dev`, one file each.

pub mod chaos;
pub mod check;
pub mod demo;
pub mod deny;
pub mod down;
pub mod load;
pub mod lock;
pub mod prepare;
pub mod schema;
pub mod test;
pub mod up;
