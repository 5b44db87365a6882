//! What is promised while processes and servers die: each test breaks something while people chat.

mod at_rest;
mod bounds;
mod nats;
mod postgres;
mod processes;
mod redis;
mod replicas;
