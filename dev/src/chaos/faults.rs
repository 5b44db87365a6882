//! What is broken, and how it shows that it was felt. A file each for what breaks.

pub mod agents;
pub mod clients;
pub mod clocks;
pub mod cluster;
pub mod cold;
pub mod commit;
pub mod departures;
pub mod failovers;
pub mod files;
pub mod frames;
pub mod hostile;
pub mod log;
pub mod nats;
pub mod notifier;
pub mod outbox;
pub mod phones;
pub mod poison;
pub mod postgres;
pub mod providers;
pub mod queue;
pub mod redis;
pub mod repeats;
pub mod replicas;
pub mod restore;
pub mod retire;
pub mod services;
