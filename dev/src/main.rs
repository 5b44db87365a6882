//! `cargo dev`: everything a developer starts.
fn main() {}
