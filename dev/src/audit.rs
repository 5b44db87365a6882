//! What is true afterwards, seen from outside: what was sent and what was answered is compared with what PostgreSQL has,
//! what history gives, what the list says, and what every device was shown.
//!
//! `evidence.rs` says what is compared, `checks.rs` compares it and does nothing else. The demo and `cargo dev chaos` are
//! judged by the same checks.

mod actions;
mod ageing;
mod cases;
mod checks;
mod cold;
mod diary;
mod evidence;
mod finding;
mod gather;
mod ledger;
mod partial;
pub mod search;
pub mod stored;

pub use self::{
    actions::Actions,
    ageing::{
        AgedCopy, AgedDay, AgedEntry, AgedFloor, AgedListing, AgedMessage, AgedRow, AgedSearch, AgeingEvidence,
        DELETED_FROM, GONE_FROM,
    },
    cases::{Case, CaseEvidence, Informed, Lease, Resolved, Searched},
    checks::{are_told, audit, audit_ageing, audit_cases, audit_cold},
    cold::{ColdDay, ColdEvidence, ColdMessage, ColdObject, ColdPack, TextPlace},
    diary::{Diary, News},
    evidence::{AwayDevice, DeviceRecord, Evidence, Listed, Observed, Pushed, ReadMark, Room, Row, Sight},
    finding::{Check, Finding, ensure_held},
    gather::{Reader, gather, history},
    ledger::{Attempt, Fate, Kept, Key, Ledger, Place},
    partial::{one_order, shown_exactly},
};
