//! The connections that watch businesses, and the state of each business that was pushed to each connection. No I/O.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chat_shared::{
    ids::{BusinessId, SessionId, UserId},
    wire::WatchedBusiness,
};
use tokio::time::Instant;

use super::super::look::Look;

/// How long a business is not looked at unless something of it changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Between two looks at one business, however often it changes.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The lists of all connections that watch businesses; `C` is the way to a connection.
pub struct Lists<C> {
    businesses: HashMap<BusinessId, Watched<C>>,
    sessions: HashMap<SessionId, Vec<BusinessId>>,
    /// The watched businesses of whose staff a user is.
    staffed: HashMap<UserId, HashSet<BusinessId>>,
    /// Grows when a staff list changes: a look at the business that began before is not pushed.
    staff_version: u64,
}

/// A business that is watched, or was a moment ago: the time and the version of its last look count for the next watcher.
struct Watched<C> {
    watchers: HashMap<SessionId, Watcher<C>>,
    /// Its state when it was last looked at.
    look: Option<Look>,
    look_at: Instant,
    looked_at: Option<Instant>,
    /// The version that the last change of its staff list began.
    staff_version: u64,
}

struct Watcher<C> {
    user_id: UserId,
    connection: C,
    pushed: Option<WatchedBusiness>,
}

/// A business to look at.
pub struct Due {
    pub business_id: BusinessId,
    staff_version: u64,
}

/// The pushes, each with its connection.
pub type Pushes<C> = Vec<(C, WatchedBusiness)>;

impl<C> Default for Lists<C> {
    fn default() -> Self {
        Self { businesses: HashMap::new(), sessions: HashMap::new(), staffed: HashMap::new(), staff_version: 0 }
    }
}

impl<C: Clone> Lists<C> {
    /// Replaces the list of a connection. What is known of its businesses is pushed; the others are looked at soon.
    pub fn replace(
        &mut self,
        session_id: SessionId,
        user_id: UserId,
        connection: &C,
        list: &[BusinessId],
        now: Instant,
    ) -> Pushes<C> {
        self.forget(session_id);
        if list.is_empty() {
            return Vec::new();
        }
        self.sessions.insert(session_id, list.to_vec());
        let mut pushes = Vec::new();
        for business_id in list {
            let business = self.businesses.entry(*business_id).or_insert_with(|| Watched::new(now, self.staff_version));
            let mut watcher = Watcher { user_id, connection: connection.clone(), pushed: None };
            pushes.extend(business.look.as_ref().and_then(|look| watcher.take(look)));
            business.watchers.insert(session_id, watcher);
        }
        pushes
    }

    /// The list of a connection.
    pub fn list_of(&self, session_id: SessionId) -> &[BusinessId] {
        self.sessions.get(&session_id).map_or(&[], Vec::as_slice)
    }

    /// The connections that watch a business.
    pub fn watchers(&self, business_id: BusinessId) -> impl Iterator<Item = &C> {
        self.businesses
            .get(&business_id)
            .into_iter()
            .flat_map(|watched| watched.watchers.values())
            .map(|it| &it.connection)
    }

    /// Forgets a connection and its list.
    pub fn forget(&mut self, session_id: SessionId) {
        for business_id in self.sessions.remove(&session_id).unwrap_or_default() {
            if let Some(watched) = self.businesses.get_mut(&business_id) {
                watched.watchers.remove(&session_id);
            }
        }
    }

    /// A business has changed. With `of_staff` its known state is dropped, and a look under way is not pushed.
    pub fn changed(&mut self, business_id: BusinessId, of_staff: bool, now: Instant) {
        if of_staff {
            self.staff_version += 1;
        }
        let Some(watched) = self.businesses.get_mut(&business_id) else { return };
        watched.look_soon(now);
        if of_staff {
            watched.staff_version = self.staff_version;
            self.forget_look(business_id);
        }
    }

    /// As `changed` with `of_staff`, of all businesses.
    pub fn all_changed(&mut self, now: Instant) {
        let all: Vec<_> = self.businesses.keys().copied().collect();
        for business_id in all {
            self.changed(business_id, true, now);
        }
    }

    /// A user came or went: the businesses of whose staff the user is are looked at soon.
    pub fn came_or_went(&mut self, user_id: UserId, now: Instant) {
        for business_id in self.staffed.get(&user_id).into_iter().flatten() {
            if let Some(watched) = self.businesses.get_mut(business_id) {
                watched.look_soon(now);
            }
        }
    }

    /// Takes the businesses whose time to be looked at has come, and forgets those that are not watched any more.
    pub fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let is_over = |watched: &Watched<C>| {
            watched.watchers.is_empty() && watched.looked_at.is_none_or(|at| at + LOOK_INTERVAL_MIN <= now)
        };
        let over = self.businesses.iter().filter(|(_, watched)| is_over(watched)).map(|(business_id, _)| *business_id);
        for business_id in over.collect::<Vec<_>>() {
            self.forget_look(business_id);
            self.businesses.remove(&business_id);
        }
        let is_due = |watched: &Watched<C>| watched.look_at <= now && !watched.watchers.is_empty();
        let due = self.businesses.iter_mut().filter(|(_, watched)| is_due(watched));
        due.map(|(business_id, watched)| {
            watched.look_at = now + LOOK_INTERVAL;
            watched.looked_at = Some(now);
            Due { business_id: *business_id, staff_version: watched.staff_version }
        })
        .collect()
    }

    /// The businesses could not be looked at.
    pub fn give_back(&mut self, due: &[Due], now: Instant) {
        for Due { business_id, .. } in due {
            if let Some(watched) = self.businesses.get_mut(business_id) {
                watched.look_soon(now);
            }
        }
    }

    /// Takes in the states of businesses. Returns what is new to each connection.
    pub fn learn(&mut self, due: &[Due], mut looks: HashMap<BusinessId, Look>, now: Instant) -> Pushes<C> {
        let mut pushes = Vec::new();
        for Due { business_id, staff_version } in due {
            let Some(look) = looks.remove(business_id) else { continue };
            let Some(watched) = self.businesses.get_mut(business_id) else { continue };
            if watched.staff_version != *staff_version {
                continue;
            }
            pushes.extend(watched.watchers.values_mut().filter_map(|watcher| watcher.take(&look)));
            if let Some(after) = look.changes_in() {
                watched.look_at = watched.look_at.min(now + after);
            }
            self.forget_look(*business_id);
            for member in &look.staff {
                self.staffed.entry(member.user_id).or_default().insert(*business_id);
            }
            if let Some(watched) = self.businesses.get_mut(business_id) {
                watched.look = Some(look);
            }
        }
        pushes
    }

    /// Whether a change lets a business be looked at before its time.
    #[cfg(test)]
    pub fn is_looked_at_early(&self, business_id: BusinessId) -> bool {
        let watched = &self.businesses[&business_id];
        watched.looked_at.is_none_or(|at| watched.look_at < at + LOOK_INTERVAL)
    }

    /// Pairs of a connection and a business that it watches.
    pub fn pairs(&self) -> usize {
        self.sessions.values().map(Vec::len).sum()
    }

    fn forget_look(&mut self, business_id: BusinessId) {
        let look = self.businesses.get_mut(&business_id).and_then(|watched| watched.look.take());
        for member in look.iter().flat_map(|look| &look.staff) {
            let Some(businesses) = self.staffed.get_mut(&member.user_id) else { continue };
            businesses.remove(&business_id);
            if businesses.is_empty() {
                self.staffed.remove(&member.user_id);
            }
        }
    }
}

impl<C> Watched<C> {
    fn new(now: Instant, staff_version: u64) -> Self {
        Self { watchers: HashMap::new(), look: None, look_at: now, looked_at: None, staff_version }
    }

    fn look_soon(&mut self, now: Instant) {
        let earliest = self.looked_at.map_or(now, |at| now.max(at + LOOK_INTERVAL_MIN));
        self.look_at = self.look_at.min(earliest);
    }
}

impl<C: Clone> Watcher<C> {
    /// The push of a state, if another state was pushed last.
    fn take(&mut self, look: &Look) -> Option<(C, WatchedBusiness)> {
        let shown = look.shown_to(self.user_id);
        if self.pushed.as_ref() == Some(&shown) {
            return None;
        }
        self.pushed = Some(shown.clone());
        Some((self.connection.clone(), shown))
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        wire::{Availability, BusinessAvailability, StaffLoad, StaffRole, StaffStatus},
    };

    use super::{super::super::store::Queue, *};

    fn look(business_id: BusinessId, staff: &[UserId], waiting: u32) -> Look {
        let load = |user_id: &UserId| StaffLoad {
            user_id: *user_id,
            role: StaffRole::Agent,
            status: StaffStatus::Available,
            is_reachable: true,
            load: 0,
            capacity: 1,
        };
        Look {
            availability: BusinessAvailability {
                business_id,
                state: Availability::Available,
                opens_at: None,
                closes_at: None,
                waiting: None,
            },
            queue: Queue { waiting, oldest_waiting_since: None },
            at: Timestamp(0),
            staff: staff.iter().map(load).collect(),
            is_reach_known: true,
            is_routing: true,
        }
    }

    /// A watched business, its agent, the agent's connection and that of a customer.
    struct Scene {
        lists: Lists<&'static str>,
        business_id: BusinessId,
        agent: UserId,
        now: Instant,
    }

    fn scene() -> Scene {
        let (mut lists, business_id, agent, now) =
            (Lists::default(), BusinessId::random(), UserId::random(), Instant::now());
        for (user_id, connection) in [(agent, "agent"), (UserId::random(), "customer")] {
            let pushes = lists.replace(SessionId::random(), user_id, &connection, &[business_id], now);
            assert!(pushes.is_empty(), "its state is not known yet");
        }
        Scene { lists, business_id, agent, now }
    }

    impl Scene {
        /// Looks at what is due: the connections to which something is pushed, and the number of waiting cases if it is.
        fn look(&mut self, waiting: u32) -> Vec<(&'static str, Option<u32>)> {
            let due = self.lists.take_due(self.now);
            self.learn(&due, waiting)
        }

        fn learn(&mut self, due: &[Due], waiting: u32) -> Vec<(&'static str, Option<u32>)> {
            let looks = HashMap::from([(self.business_id, look(self.business_id, &[self.agent], waiting))]);
            let pushes = self.lists.learn(due, looks, self.now);
            let mut pushes: Vec<_> = pushes
                .into_iter()
                .map(|(connection, business)| (connection, business.queue.map(|queue| queue.waiting)))
                .collect();
            pushes.sort_unstable();
            pushes
        }
    }

    #[test]
    fn a_state_is_pushed_once_and_the_queue_to_staff_alone_r7_1() {
        let mut scene = scene();
        assert_eq!(scene.look(3), [("agent", Some(3)), ("customer", None)]);
        assert_eq!(scene.look(4), [], "it is not looked at again without a reason");
        scene.now += LOOK_INTERVAL;
        assert_eq!(scene.look(4), [("agent", Some(4))], "the customer is shown the same as before");
        scene.now += LOOK_INTERVAL;
        assert_eq!(scene.look(4), []);
    }

    #[test]
    fn a_change_or_a_member_who_comes_lets_a_business_be_looked_at_but_not_too_often_r7_3() {
        let mut scene = scene();
        scene.look(0);
        scene.lists.changed(scene.business_id, false, scene.now);
        assert_eq!(scene.look(1), [], "a moment after the last look");
        scene.now += LOOK_INTERVAL_MIN;
        assert_eq!(scene.look(1), [("agent", Some(1))]);
        scene.now += LOOK_INTERVAL_MIN;
        scene.lists.came_or_went(UserId::random(), scene.now);
        assert_eq!(scene.look(2), [], "a stranger came");
        scene.lists.came_or_went(scene.agent, scene.now);
        assert_eq!(scene.look(2), [("agent", Some(2))]);
    }

    #[test]
    fn a_look_that_began_before_the_staff_changed_is_not_pushed_r6_5() {
        let mut scene = scene();
        let due = scene.lists.take_due(scene.now);
        scene.lists.changed(scene.business_id, true, scene.now);
        assert_eq!(scene.learn(&due, 1), []);
        scene.now += LOOK_INTERVAL_MIN;
        assert_eq!(scene.look(1), [("agent", Some(1)), ("customer", None)]);
        // Nor is the state that is known, to a connection that comes now.
        scene.lists.changed(scene.business_id, true, scene.now);
        let pushes = scene.lists.replace(SessionId::random(), scene.agent, &"again", &[scene.business_id], scene.now);
        assert!(pushes.is_empty());
    }

    #[test]
    fn a_known_state_is_pushed_at_once_and_nothing_is_kept_of_a_list_that_ended() {
        let mut scene = scene();
        scene.look(0);
        let session_id = SessionId::random();
        let list = [scene.business_id, BusinessId::random()];
        let pushes = scene.lists.replace(session_id, scene.agent, &"tablet", &list, scene.now);
        assert_eq!((pushes.len(), scene.lists.pairs()), (1, 4));
        assert!(scene.lists.replace(session_id, scene.agent, &"tablet", &[], scene.now).is_empty());
        assert_eq!(scene.lists.pairs(), 2);
        let sessions: Vec<_> = scene.lists.sessions.keys().copied().collect();
        for session_id in sessions {
            scene.lists.forget(session_id);
        }
        scene.now += LOOK_INTERVAL_MIN;
        assert!(scene.lists.take_due(scene.now).is_empty());
        assert!(scene.lists.businesses.is_empty() && scene.lists.staffed.is_empty());
    }

    #[test]
    fn a_list_that_ends_and_begins_again_neither_hides_a_change_of_the_staff_nor_makes_looks_more_frequent_r6_5() {
        let mut scene = scene();
        let due = scene.lists.take_due(scene.now);
        let sessions: Vec<_> = scene.lists.sessions.keys().copied().collect();
        for session_id in &sessions {
            scene.lists.forget(*session_id);
        }
        let again = |scene: &mut Scene| {
            scene.lists.replace(sessions[0], scene.agent, &"agent", &[scene.business_id], scene.now)
        };
        assert!(again(&mut scene).is_empty());
        assert!(scene.lists.take_due(scene.now).is_empty(), "it was looked at a moment ago");
        scene.lists.forget(sessions[0]);
        // The entry ends while the look is under way, and the staff changes before the list begins again.
        scene.now += LOOK_INTERVAL_MIN;
        assert!(scene.lists.take_due(scene.now).is_empty());
        scene.lists.changed(scene.business_id, true, scene.now);
        again(&mut scene);
        assert_eq!(scene.learn(&due, 1), [], "it shows the staff before the change");
    }

    #[test]
    fn hours_that_end_let_a_business_be_looked_at_then_r7_4() {
        let mut scene = scene();
        let due = scene.lists.take_due(scene.now);
        let mut changing = look(scene.business_id, &[], 0);
        changing.availability.closes_at = Some(Timestamp(4000));
        scene.lists.learn(&due, HashMap::from([(scene.business_id, changing)]), scene.now);
        scene.now += Duration::from_secs(3);
        assert!(scene.lists.take_due(scene.now).is_empty());
        scene.now += Duration::from_secs(1);
        assert_eq!(scene.lists.take_due(scene.now).len(), 1);
    }
}
