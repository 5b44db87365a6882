//! Notifications with real servers and stand-ins for the providers: who is notified, how often, and who isn't.

mod away;
mod business;
mod ended;
mod outages;
mod people;
mod providers;
mod reaper;
mod stage;
mod waiting;
