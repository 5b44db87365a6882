//! Tests with real servers: what is stored, buried, retried and healed.

mod business;
mod dead_letters;
mod instances;
mod lost_log;
mod outage;
mod place;
mod reading;
mod reclaim;
mod restored;
mod storing;
