//! The commands of `cargo dev`, one file each.
