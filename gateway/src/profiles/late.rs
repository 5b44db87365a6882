//! Pushes to a user what their answer could not wait for.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    delivery::{Delivery, all_gateways_subject},
    ids::UserId,
    wire::ProfileList,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Profiles,
    gather::Arrivals,
    record::{ProfileId, View},
    telemetry,
};
use crate::delivery::publish_on;

/// Answers whose rest is waited for. That of others isn't pushed; it is there when they ask again.
pub(super) const WAITING_MAX: usize = 1000;
/// How long the rest of an answer is waited for.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Profiles of one push.
const PUSH_PROFILES_MAX: usize = 50;

impl Profiles {
    /// Pushes to a user's connections, wherever they are, what is still to arrive.
    pub(super) fn push_late(&self, user_id: UserId, mut arrivals: Arrivals) {
        let Some(known) = &self.0.known else { return };
        let Ok(permit) = Arc::clone(&known.late).try_acquire_owned() else {
            metrics::counter!(telemetry::UNPUSHED_TOTAL).increment(telemetry::number(arrivals.max_capacity()));
            return;
        };
        let profiles = self.clone();
        self.0.tasks.lasting("late_profiles", async move {
            let _permit = permit;
            let deadline = Instant::now() + WAIT_MAX;
            let mut late = Vec::new();
            while let Ok(Some((id, verdict))) = timeout_at(deadline, arrivals.recv()).await {
                late.extend(verdict.map(|verdict| (id, View::from(verdict))));
            }
            for some in late.chunks(PUSH_PROFILES_MAX) {
                profiles.push(listed(some), vec![user_id]).await;
            }
        });
    }

    /// Pushes profiles to users, wherever they are connected. False if it is known that they won't get them.
    pub(super) async fn push(&self, profiles: ProfileList, user_ids: Vec<UserId>) -> bool {
        let subject = all_gateways_subject(&self.0.namespace);
        publish_on(&self.0.nats, subject, &Delivery::Profiles { profiles, user_ids }).await
    }
}

/// Profiles as they are shown.
pub(super) fn listed(views: &[(ProfileId, View)]) -> ProfileList {
    let mut list = ProfileList::default();
    for (id, view) in views {
        match id {
            ProfileId::User(id) => list.users.push(view.of_user(*id)),
            ProfileId::Business(id) => list.businesses.push(view.of_business(*id)),
        }
    }
    list
}
