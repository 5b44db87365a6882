//! The evidence of a desk: it is collected again until nothing changes and no check finds a violation, or the time is over.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use chat_client::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, UserId},
    wire::{CaseState, Message},
};
use chat_shared::clock::Clock;
use tokio::time::{Instant, sleep};

use super::{Desk, Place};
use crate::{
    audit::{
        Case, CaseEvidence, Check, DeviceRecord, Diary, Evidence, Finding, Informed, Key, Lease, Reader, Room,
        Searched, audit, audit_cases, gather, history, search::lines_with, stored,
    },
    chaos::{crowd::Device, ground::Ground, settle},
};

/// How long everything may take to be as it has to be. Clients wait up to 30 s between two tries to connect.
const SETTLE_DEADLINE: Duration = Duration::from_secs(90);
/// How long nothing may change. Gateways look for what is to be done every two seconds.
const QUIET: Duration = Duration::from_secs(5);

/// What services log of a fault of their own, and PostgreSQL of constraints that a decision of theirs has violated.
const FAULTS: [&str; 5] = [
    "a fault of ours",
    "violates unique constraint",
    "violates check constraint",
    "as many cases as the capacity allows",
    "deadlock detected",
];

/// Lines of logs, and those that tell of a fault.
pub fn fault_lines(directory: &Path) -> Result<(usize, Vec<String>)> {
    lines_with(directory, &FAULTS)
}

/// What was found, and all assignments.
#[derive(Debug)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub leases: Vec<Lease>,
}

impl Desk {
    /// Audits messages, cases and assignments once all work has ended. `faults_before` are lines of logs from before it.
    pub async fn audit(&self, ground: &Ground, faults_before: usize) -> Result<Outcome> {
        settle::learn_outcomes(&self.readers()?, &self.ledger).await;
        let end = Instant::now() + SETTLE_DEADLINE;
        loop {
            let before = self.cases(ground).await?;
            sleep(QUIET).await;
            let is_over = Instant::now() >= end;
            let (messages, cases) = match self.evidence(ground, faults_before).await {
                Ok(evidence) => evidence,
                // An agent may have lost a case that was asked about.
                Err(_) if !is_over => continue,
                Err(error) => return Err(error),
            };
            let is_quiet = before == cases.cases && self.cases(ground).await? == before;
            let mut findings = audit(&messages);
            findings.extend(audit_cases(&cases));
            if is_over || (is_quiet && findings.iter().all(Finding::is_held)) {
                let (refused, first) = self.samples.refusals();
                let of = self.ledger.count() as u64;
                findings.push(Finding { check: Check::Refused, violations: refused, of, first });
                return Ok(Outcome { findings, leases: cases.leases });
            }
        }
    }

    async fn cases(&self, ground: &Ground) -> Result<Vec<Case>> {
        stored::cases(&mut ground.postgres().await?, &self.business_ids()).await
    }

    async fn evidence(&self, ground: &Ground, faults_before: usize) -> Result<(Evidence, CaseEvidence)> {
        let ids = self.business_ids();
        let mut postgres = ground.postgres().await?;
        let cases = stored::cases(&mut postgres, &ids).await?;
        let (staff, leases) = (stored::staff(&mut postgres, &ids).await?, stored::leases(&mut postgres, &ids).await?);
        let rooms: Vec<_> = self.places.iter().map(|place| with_agent(place, &cases)).collect();
        let mut devices: Vec<_> = self.customers.iter().map(Device::record).collect();
        for agent in &self.agents {
            devices.push(record_of_agent(agent, &rooms).await?);
        }
        let (url, attempts) = (&ground.fleet.urls().postgres, self.ledger.attempts());
        // Dead letters are looked at by others.
        let mut messages = gather(url, &rooms, attempts, &self.readers()?, devices, u64::MAX).await?;
        self.unmask(&mut messages);
        messages.pushed = self.customers.iter().map(Device::pushed).collect();
        let connected: Vec<_> = self.customers.iter().chain(&self.agents).map(|it| it.person.user_id).collect();
        let informed = rooms.iter().flat_map(|room| room.members.iter().map(|user_id| (room.id, *user_id)));
        messages.informed = informed.filter(|(_, user_id)| connected.contains(user_id)).collect();
        let (log_lines, faults) = fault_lines(ground.fleet.dir())?;
        let evidence = CaseEvidence {
            cases,
            staff,
            leases,
            rows: messages.rows.clone(),
            resolved: self.board.resolved(),
            informed: self.informed(ground),
            searched: self.customers.iter().map(searched).collect(),
            log_lines: log_lines as u64,
            faults: faults.into_iter().skip(faults_before).collect(),
        };
        Ok((messages, evidence))
    }

    /// Puts agents in the place of the business, under whose id customers are shown them.
    fn unmask(&self, evidence: &mut Evidence) {
        let staff: Vec<_> = self.staff().collect();
        let sent = evidence.attempts.iter().map(|attempt| attempt.key).filter(|key| staff.contains(&key.sender_id));
        let senders: BTreeMap<_, _> = sent
            .map(|Key { conversation_id, sender_id, message_id }| ((conversation_id, message_id), sender_id))
            .collect();
        let businesses: BTreeMap<ConversationId, UserId> =
            self.places.iter().map(|place| (place.room.id, place.business_id.into())).collect();
        let unmask = |message: &mut Message| {
            let sender = senders.get(&(message.conversation_id, message.message_id));
            if let Some(sender) = sender
                && businesses.get(&message.conversation_id) == Some(&message.sender_id)
            {
                message.sender_id = *sender;
            }
        };
        evidence.history.iter_mut().for_each(unmask);
        let shown = evidence.devices.iter_mut().flat_map(|device| &mut device.messages);
        shown.for_each(unmask);
    }

    /// What each agent knows of assignments.
    fn informed(&self, ground: &Ground) -> BTreeMap<UserId, Informed> {
        let services = ground.fleet.push_services();
        let connected = self.agents.iter().map(|agent| (agent.person.user_id, informed(&agent.person.diary(), true)));
        let notified = self.pocket.phones.iter().flat_map(|phone| phone.notified_of(services));
        let pocket = Informed {
            has_device: true,
            notified: notified.map(|(id, at)| (id, moment(at))).collect(),
            ..informed(&self.pocket.diary.borrow(), false)
        };
        connected.chain([(self.pocket.user_id, pocket)]).collect()
    }

    fn readers(&self) -> Result<Vec<Reader>> {
        let pocket = Reader { user_id: self.pocket.user_id, rest: self.pocket.rest.clone() };
        self.customers.iter().chain(&self.agents).map(Device::reader).chain([Ok(pocket)]).collect()
    }

    fn business_ids(&self) -> Vec<BusinessId> {
        self.businesses.iter().map(|business| business.id).collect()
    }
}

/// What an agent was shown. Its client skips what it was refused while another agent had the case, and the agent reads that in
/// history once it has the case again.
async fn record_of_agent(agent: &Device, rooms: &[Room]) -> Result<DeviceRecord> {
    let mut record = DeviceRecord { skipped: 0, ..agent.record() };
    let skipped = agent.person.diary().skipped().to_vec();
    for room in rooms.iter().filter(|room| room.members.contains(&record.user_id)) {
        let skipped: Vec<_> = skipped.iter().filter(|(id, ..)| *id == room.id).collect();
        if skipped.is_empty() {
            continue;
        }
        for message in history(agent.person.rest()?, room.id).await? {
            let is_skipped = skipped.iter().any(|(_, from, to)| (*from..=*to).contains(&message.seq));
            if is_skipped && !record.messages.iter().any(|shown| shown.message_id == message.message_id) {
                let is_later = |shown: &Message| shown.conversation_id == room.id && shown.seq > message.seq;
                let place = record.messages.iter().position(is_later).unwrap_or(record.messages.len());
                record.messages.insert(place, message);
            }
        }
    }
    Ok(record)
}

/// The customer, and the agent that has the case.
fn with_agent(place: &Place, cases: &[Case]) -> Room {
    let case = cases.iter().find(|case| case.conversation_id == place.room.id);
    let agent = case.filter(|case| case.state == CaseState::Assigned).and_then(|case| case.agent_id);
    Room { id: place.room.id, members: place.room.members.iter().copied().chain(agent).collect() }
}

fn informed(diary: &Diary, is_connected: bool) -> Informed {
    let (changed, listed_at) = (diary.changed().clone(), diary.reloaded_at().map(moment));
    Informed { is_connected, changed, listed_at, ..Informed::default() }
}

/// A moment as PostgreSQL on this machine has it.
fn moment(at: Instant) -> Timestamp {
    Clock::System.now().before(at.elapsed())
}

fn searched(device: &Device) -> Searched {
    let (bytes, found) = device.found();
    let (business, staff) = found.split_last().map_or((0, 0), |(business, staff)| (*business, staff.iter().sum()));
    Searched { device: device.name.clone(), bytes, staff, business }
}
