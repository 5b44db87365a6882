//! Wrong, hostile and excessive input: each gets its documented answer, and nobody else notices.

mod frames;
mod handshakes;
mod limits;
mod replies;
mod rest;
mod silence;
mod witness;
