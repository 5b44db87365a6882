//! Real processes, real faults, one auditor: what `cargo dev chaos` does.
//!
//! Each scenario lets people write, breaks something at random moments, heals it, and waits until everything has become
//! what it has to be. Then `crate::audit` compares what was sent with what is there. A run in which the fault was not felt
//! is void: it proves nothing.

mod absent;
mod claims;
mod crowd;
mod desk;
mod disk;
mod faults;
mod ground;
mod guests;
mod line;
mod listers;
mod load;
mod loss;
mod old_texts;
mod outcome;
mod past;
mod phone;
mod presence;
mod report;
mod row;
mod run;
mod scenario;
mod settle;
mod tap;
mod told;
mod trial;
mod wire;

pub use self::{
    ground::Means,
    outcome::{Outcome, Verdict},
    report::Report,
    row::Row,
    scenario::Scenario,
    trial::Scale,
};
