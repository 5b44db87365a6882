//! Compares the staff lists of businesses with those of kaha-main-v3, so that a push that was lost takes effect within an hour.
//!
//! A gateway claims businesses that are due in PostgreSQL, so that no other gateway asks for them, and asks for all of them by
//! one call. A claim ends after a few minutes: then businesses whose comparison did not end are due again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chat_shared::{
    clock::Clock,
    ids::{BusinessId, UserId},
    limits,
    wire::{Map, StaffRole},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use tokio_util::sync::CancellationToken;

use super::{
    Businesses,
    staff::{ListOutcome, StaffList, StaffMember},
};
use crate::{
    auth::Signer,
    conversations::stored_id,
    database::bounded,
    kaha::{Client, Endpoint, Metrics, Unreadable},
    profiles::ProfileSettings,
    refusal::Refusal,
    state::AppState,
    telemetry,
};

/// Where lists are asked for.
static ENDPOINT: Endpoint = Endpoint {
    path: "api/batch/staff",
    scope: "staff:read",
    // Two hundred lists of five hundred members take ten.
    answer_bytes_max: 16 * 1024 * 1024,
    metrics: Metrics {
        calls_total: telemetry::STAFF_CALLS_TOTAL,
        call_seconds: telemetry::STAFF_CALL_SECONDS,
        breaker_open: telemetry::STAFF_BREAKER_OPEN,
    },
    consequence: "staff lists are compared later",
    refused: "staff lists can't be asked for",
};

/// How often a business is compared.
const EVERY: Duration = Duration::from_hours(1);
/// How long a claim lasts.
const CLAIM: Duration = Duration::from_mins(5);
/// Between two passes, give or take half of it, so that gateways take turns.
const INTERVAL: Duration = Duration::from_mins(1);
/// The same while more businesses are due than one call asks for.
const INTERVAL_BEHIND: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Serialize)]
struct Request<'a> {
    business_ids: &'a [BusinessId],
}

/// Starts the task, until the gateway drains. Without an address of kaha-main-v3 there is none.
pub fn start(state: &AppState, settings: &ProfileSettings, signer: Option<Arc<Signer>>) -> anyhow::Result<()> {
    let comparison = Comparison::new(state.businesses.clone(), settings, signer, state.clock.clone())?;
    if let Some(comparison) = comparison {
        let draining = state.tasks.draining().clone();
        state.tasks.best_effort("staff_comparison", comparison.run(draining));
    }
    Ok(())
}

/// The comparison of one gateway.
pub struct Comparison {
    businesses: Businesses,
    kaha: Client,
    /// Businesses of the next call: half as many after each call that fails, so that one business for which kaha-main-v3 fails
    /// keeps no other from being compared.
    claimed_max: AtomicUsize,
}

impl Comparison {
    /// With kaha-main-v3 at the address of the settings; none if there is no address.
    pub fn new(
        businesses: Businesses,
        settings: &ProfileSettings,
        signer: Option<Arc<Signer>>,
        clock: Clock,
    ) -> anyhow::Result<Option<Self>> {
        let Some((url, signer)) = settings.kaha_url.as_ref().zip(signer) else { return Ok(None) };
        let kaha = Client::new(&ENDPOINT, url, &settings.kaha_audience, signer, clock)?;
        Ok(Some(Self { businesses, kaha, claimed_max: AtomicUsize::new(limits::KAHA_CALL_IDS_MAX) }))
    }

    async fn run(self, draining: CancellationToken) {
        let mut interval = INTERVAL;
        loop {
            let pause = interval.mul_f64(rand::random_range(0.5..1.5));
            // Cancel safe: it only waits.
            if draining.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            // Cancel safe: each change is a transaction of its own, claims end, and the sweep gives back the cases of agents that
            // were removed.
            let is_behind = match draining.run_until_cancelled(self.pass()).await {
                None => return,
                Some(Ok(is_behind)) => is_behind,
                Some(Err(refusal)) => {
                    tracing::debug!(%refusal, "staff lists can't be compared now, trying again");
                    false
                }
            };
            interval = if is_behind { INTERVAL_BEHIND } else { INTERVAL };
        }
    }

    /// Compares the businesses that are due, by one call at the most. True if more may be due.
    pub async fn pass(&self) -> Result<bool, Refusal> {
        if self.kaha.is_resting() {
            return Ok(false);
        }
        let claimed_max = self.claimed_max.load(Ordering::Relaxed);
        let claimed = self.claim(claimed_max).await?;
        if claimed.is_empty() {
            return Ok(false);
        }
        let mut lists = match self.kaha.ask(&Request { business_ids: &claimed }, read).await {
            Ok(lists) => lists,
            Err(error) => {
                tracing::debug!(%error, "staff lists were not compared");
                self.claimed_max.store((claimed.len() / 2).max(1), Ordering::Relaxed);
                return Ok(false);
            }
        };
        self.claimed_max.store((claimed_max * 2).min(limits::KAHA_CALL_IDS_MAX), Ordering::Relaxed);
        let mut compared = Vec::with_capacity(claimed.len());
        for business_id in &claimed {
            let outcome = self.compare(*business_id, lists.take(*business_id)).await.unwrap_or_else(|refusal| {
                tracing::debug!(?business_id, %refusal, "a staff list was not compared");
                ListOutcome::Failed
            });
            outcome.count();
            if outcome != ListOutcome::Failed {
                compared.push(*business_id);
            }
        }
        self.note(&compared).await?;
        Ok(claimed.len() == claimed_max)
    }

    async fn compare(&self, business_id: BusinessId, listed: Listed) -> Result<ListOutcome, Refusal> {
        match listed {
            Listed::As(list) => self.businesses.compare_staff(business_id, &list).await,
            Listed::Unreadable => {
                tracing::warn!(?business_id, "the staff list of kaha-main-v3 can't be read");
                Ok(ListOutcome::Invalid)
            }
            Listed::Unknown => {
                tracing::info!(?business_id, "kaha-main-v3 does not name a business whose staff is stored");
                Ok(ListOutcome::Unknown)
            }
        }
    }

    /// Takes businesses that are due, those that are due for the longest time first. Those whose row is locked are left.
    async fn claim(&self, claimed_max: usize) -> Result<Vec<BusinessId>, Refusal> {
        let mut connection = self.businesses.database.connection().await?;
        let claiming = sqlx::query_scalar!(
            "with due as materialized (
                 select business_id from businesses where checked_at <= clock_timestamp() - make_interval(secs => $1)
                 order by checked_at limit $2 for no key update skip locked
             )
             update businesses b set checked_at = clock_timestamp() - make_interval(secs => $3)
             from due where b.business_id = due.business_id
             returning b.business_id",
            EVERY.as_secs_f64(),
            i64::try_from(claimed_max).unwrap_or(i64::MAX),
            EVERY.saturating_sub(CLAIM).as_secs_f64()
        );
        let claimed = bounded(claiming.fetch_all(&mut *connection)).await?;
        claimed.into_iter().map(|id| Ok(stored_id(id)?)).collect()
    }

    /// Notes that businesses were compared. Those whose row is locked are compared again when their claim ends.
    async fn note(&self, compared: &[BusinessId]) -> Result<(), Refusal> {
        let ids: Vec<_> = compared.iter().map(|business_id| business_id.as_uuid()).collect();
        let mut connection = self.businesses.database.connection().await?;
        let noting = sqlx::query!(
            "with compared as materialized (
                 select business_id from businesses where business_id = any($1) for no key update skip locked
             )
             update businesses b set checked_at = clock_timestamp()
             from compared where b.business_id = compared.business_id",
            &ids
        );
        bounded(noting.execute(&mut *connection)).await?;
        Ok(())
    }
}

/// What an answer has of one business.
#[derive(Debug)]
enum Listed {
    As(StaffList),
    /// Its list can't be read.
    Unreadable,
    /// Nothing.
    Unknown,
}

/// The lists of an answer; none where a list can't be read.
#[derive(Debug, Default)]
struct Lists {
    by_business: HashMap<BusinessId, Option<StaffList>>,
    /// Whether there are entries of which it can't be read of which business they are.
    has_nameless: bool,
}

impl Lists {
    fn take(&mut self, business_id: BusinessId) -> Listed {
        match self.by_business.remove(&business_id) {
            Some(Some(list)) => Listed::As(list),
            None if !self.has_nameless => Listed::Unknown,
            Some(None) | None => Listed::Unreadable,
        }
    }
}

#[derive(Deserialize)]
struct Body {
    businesses: Vec<Entry>,
}

/// The list of one business. Fields that are not known are passed over, as in all answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Usable { business_id: BusinessId, version: u64, staff: Vec<Member> },
    Damaged { business_id: BusinessId },
    Nameless(IgnoredAny),
}

#[derive(Deserialize)]
struct Member {
    user_id: UserId,
    role: StaffRole,
    capacity: Option<u32>,
}

impl From<Member> for StaffMember {
    fn from(Member { user_id, role, capacity }: Member) -> Self {
        Self { user_id, role, capacity }
    }
}

/// Reads an answer. One list that can't be read harms no other.
fn read(body: &[u8]) -> Result<Lists, Unreadable> {
    // The error of serde_json may quote the body.
    let Map(body): Map<Body> = serde_json::from_slice(body).map_err(|_| Unreadable("no JSON of the right form"))?;
    let mut lists = Lists::default();
    for entry in body.businesses {
        let (business_id, list) = match entry {
            Entry::Usable { business_id, version, staff } => {
                (business_id, Some(StaffList { version, staff: staff.into_iter().map(StaffMember::from).collect() }))
            }
            Entry::Damaged { business_id } => (business_id, None),
            Entry::Nameless(_) => {
                lists.has_nameless = true;
                continue;
            }
        };
        // Of two lists neither is known to be the right one.
        lists.by_business.entry(business_id).and_modify(|list| *list = None).or_insert(list);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(businesses: &Value) -> Lists {
        super::read(json!({ "businesses": businesses, "page": 1 }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_list_is_read_with_fields_that_are_not_known_and_one_that_is_not_named_is_unknown() {
        let (business_id, user_id) = (BusinessId::random(), UserId::random());
        let staff = json!([{ "user_id": user_id.as_uuid(), "role": "agent", "since": 1 }]);
        let mut lists =
            read(&json!([{ "business_id": business_id.as_uuid(), "version": 3, "staff": staff, "name": "" }]));
        let Listed::As(list) = lists.take(business_id) else { panic!("it is listed") };
        assert_eq!((list.version, list.staff[0].user_id, list.staff[0].capacity), (3, user_id, None));
        assert!(matches!(lists.take(BusinessId::random()), Listed::Unknown));
    }

    #[test]
    fn a_damaged_list_harms_no_other_and_is_not_taken_to_be_missing() {
        let [sound, other] = [(); 2].map(|()| BusinessId::random());
        let entry = |id: BusinessId| json!({ "business_id": id.as_uuid(), "version": 1, "staff": [] });
        let damaged = |name: &str, value: Value| {
            let mut entry = entry(other);
            entry[name] = value;
            entry
        };
        let member = |id: Value| json!([{ "user_id": id, "role": "agent" }]);
        for wrong in [
            json!([entry(sound), damaged("version", json!(-1))]),
            json!([entry(sound), damaged("version", json!("1"))]),
            json!([entry(sound), damaged("staff", Value::Null)]),
            json!([entry(sound), damaged("staff", member(json!("somebody")))]),
            json!([entry(sound), damaged("business_id", json!("somebody"))]),
            json!([entry(sound), entry(other), entry(other)]),
            json!([7, entry(sound)]),
        ] {
            let mut lists = read(&wrong);
            assert!(matches!(lists.take(sound), Listed::As(_)), "{wrong}");
            assert!(matches!(lists.take(other), Listed::Unreadable), "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_another_form_says_nothing() {
        for body in ["", "[]", "{}", r#"{"businesses":{}}"#, r#"{"businesses":[]"#, "[[]]"] {
            assert!(super::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
