//! The notifier as a real process, with real servers: routing, Redis gone, hand-overs.

mod broken;
mod hand_over;
mod installation;
mod people;
mod redis_gone;
mod routing;
