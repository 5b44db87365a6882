//! Who watches whom on this gateway, and what they know. No I/O.
//!
//! What is known of a user is the same for all who watch them, so a change is pushed to all of them or to none.

use std::collections::{HashMap, HashSet};

use chat_shared::{
    clock::Timestamp,
    delivery::PresenceChange,
    ids::{SessionId, UserId},
    inbox::Seen,
    limits,
    wire::Presence,
};

use super::announce::supersedes;

/// The lists of all connections that watch; `C` is the way to a connection.
pub struct Lists<C> {
    users: HashMap<UserId, Watched>,
    watchers: HashMap<SessionId, Watcher<C>>,
    /// Watchers whose lists have to be authorised again.
    suspects: HashSet<SessionId>,
    /// Pairs of a watcher and a user.
    pairs: usize,
}

/// A user who is watched, or about to be.
#[derive(Default)]
struct Watched {
    known: Option<PresenceChange>,
    sessions: Vec<SessionId>,
    /// Lists with the user that are being made, or that hide them: changes must not be missed, as they may be shown soon.
    awaited: usize,
}

struct Watcher<C> {
    user_id: UserId,
    connection: C,
    list: Vec<UserId>,
    /// Those asked for besides who are shown as away, whatever they do: there is a block between them and the watcher.
    hidden: Vec<UserId>,
    /// Grows with each list.
    version: u64,
    /// Whether a list is being made.
    is_preparing: bool,
    /// While the list is suspect nothing is pushed: of whom there is something to say.
    withheld: Option<HashSet<UserId>>,
}

/// A list that has to be authorised again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The connection's session.
    pub session_id: SessionId,
    /// Who watches.
    pub user_id: UserId,
    /// Whom, also those who are hidden.
    pub list: Vec<UserId>,
    version: u64,
}

/// Whom a watcher may watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Those with whom they share a conversation.
    pub known: HashSet<UserId>,
    /// Those of them between whom and the watcher there is a block.
    pub hidden: HashSet<UserId>,
}

/// What is to be pushed to whom.
pub type Pushes<C> = Vec<(C, Vec<Presence>)>;

impl<C> Default for Lists<C> {
    fn default() -> Self {
        Self { users: HashMap::new(), watchers: HashMap::new(), suspects: HashSet::new(), pairs: 0 }
    }
}

impl<C: Clone> Lists<C> {
    /// Begins to make a list: from here on no change of these users is missed.
    pub fn prepare(&mut self, session_id: SessionId, user_id: UserId, connection: C, list: &[UserId]) {
        let watcher = self.watchers.entry(session_id).or_insert_with(|| Watcher::new(user_id, connection));
        watcher.is_preparing = true;
        self.begin_wait(list);
    }

    /// Gives up a list that was being made; the earlier one stays.
    pub fn give_up(&mut self, session_id: SessionId, list: &[UserId]) {
        self.end_wait(list);
        let Some(watcher) = self.watchers.get_mut(&session_id) else { return };
        watcher.is_preparing = false;
        if watcher.is_idle() {
            self.forget(session_id);
        }
    }

    /// Puts the list that was being made in the place of the earlier one. What was read tells its watcher of all, and
    /// others of what they didn't know.
    pub fn replace(
        &mut self,
        session_id: SessionId,
        list: &[UserId],
        hidden: &HashSet<UserId>,
        read: &[Seen],
    ) -> Pushes<C> {
        let mut pushes = self.learn_read(read).0;
        if let Some(mut watcher) = self.watchers.remove(&session_id) {
            watcher.is_preparing = false;
            watcher.version += 1;
            self.unwatch(session_id, &watcher.list);
            self.end_wait(&watcher.hidden);
            (watcher.hidden, watcher.list) = list.iter().partition(|user_id| hidden.contains(user_id));
            self.begin_wait(&watcher.hidden);
            self.watch(session_id, &watcher.list);
            match &mut watcher.withheld {
                // Somebody may be in it by now who must not be.
                Some(withheld) => withheld.extend(list),
                None if list.is_empty() => {}
                None => pushes.push((watcher.connection.clone(), self.shown(&watcher, list.iter().copied()))),
            }
            self.keep(session_id, watcher);
        }
        self.end_wait(list);
        pushes
    }

    /// How users are, as a watcher is shown them; whoever isn't in the list is left out.
    fn shown(&self, watcher: &Watcher<C>, user_ids: impl Iterator<Item = UserId>) -> Vec<Presence> {
        let shown = |user_id: UserId| {
            if watcher.hidden.contains(&user_id) {
                return Some(Presence { user_id, is_online: false, last_seen_at: None });
            }
            let known = self.users.get(&user_id).filter(|_| watcher.list.contains(&user_id))?.known;
            known.map(|known| known.presence)
        };
        user_ids.filter_map(shown).collect()
    }

    /// Keeps a watcher who watches somebody, or is about to.
    fn keep(&mut self, session_id: SessionId, watcher: Watcher<C>) {
        if watcher.is_idle() {
            self.suspects.remove(&session_id);
        } else {
            self.watchers.insert(session_id, watcher);
        }
    }

    fn watch(&mut self, session_id: SessionId, list: &[UserId]) {
        for user_id in list {
            self.users.entry(*user_id).or_default().sessions.push(session_id);
        }
        self.pairs += list.len();
    }

    fn begin_wait(&mut self, list: &[UserId]) {
        for user_id in list {
            self.users.entry(*user_id).or_default().awaited += 1;
        }
    }

    fn end_wait(&mut self, list: &[UserId]) {
        for user_id in list {
            if let Some(watched) = self.users.get_mut(user_id) {
                watched.awaited = watched.awaited.saturating_sub(1);
                self.drop_unwatched(*user_id);
            }
        }
    }

    fn unwatch(&mut self, session_id: SessionId, list: &[UserId]) {
        for user_id in list {
            if let Some(watched) = self.users.get_mut(user_id) {
                watched.sessions.retain(|other| *other != session_id);
                self.drop_unwatched(*user_id);
            }
        }
        self.pairs = self.pairs.saturating_sub(list.len());
    }

    fn drop_unwatched(&mut self, user_id: UserId) {
        if self.users.get(&user_id).is_some_and(|watched| watched.sessions.is_empty() && watched.awaited == 0) {
            self.users.remove(&user_id);
        }
    }

    /// Takes in what was announced.
    pub fn learn(&mut self, changes: &[PresenceChange]) -> Pushes<C> {
        self.learn_if(supersedes, changes)
    }

    fn learn_if(
        &mut self,
        supersedes: impl Fn(&PresenceChange, &PresenceChange) -> bool,
        changes: &[PresenceChange],
    ) -> Pushes<C> {
        let mut pushes: HashMap<SessionId, Vec<Presence>> = HashMap::new();
        for change in changes {
            let Some(watched) = self.users.get_mut(&change.presence.user_id) else { continue };
            if watched.known.is_some_and(|known| !supersedes(change, &known)) {
                continue;
            }
            let before = watched.known.replace(*change);
            if before.is_none_or(|before| before.presence != change.presence) {
                for session_id in &watched.sessions {
                    pushes.entry(*session_id).or_default().push(change.presence);
                }
            }
        }
        let told = |(session_id, users): (SessionId, Vec<Presence>)| {
            let watcher = self.watchers.get_mut(&session_id)?;
            if let Some(withheld) = &mut watcher.withheld {
                withheld.extend(users.iter().map(|presence| presence.user_id));
                return None;
            }
            Some((watcher.connection.clone(), users))
        };
        pushes.into_iter().filter_map(told).collect()
    }

    /// Takes in what was read in Redis; true if it is to be read again, because somebody went a moment ago.
    ///
    /// They may be back before anybody is told, and what comes of it is announced: until then they count as there. What was
    /// read shows the last change, and what became of it since: whether the gateways' leases hold.
    pub fn learn_read(&mut self, read: &[Seen]) -> (Pushes<C>, bool) {
        let was_known_online = |user_id: &UserId| {
            let known = self.users.get(user_id).and_then(|watched| watched.known);
            known.is_some_and(|known| known.presence.is_online)
        };
        let (recent, settled): (Vec<Seen>, Vec<Seen>) =
            read.iter().partition(|seen| went_just_now(seen) && was_known_online(&seen.presence.user_id));
        let change = |seen: Seen| PresenceChange { presence: seen.presence, at: seen.at };
        let changes: Vec<_> = settled.into_iter().map(change).collect();
        (self.learn_if(|read, known| read.at >= known.at, &changes), !recent.is_empty())
    }

    /// Notes that a connection, if it watches, may watch somebody whom it must not any more. Until that is known it is pushed
    /// nothing.
    pub fn suspect(&mut self, session_id: SessionId) {
        if let Some(watcher) = self.watchers.get_mut(&session_id) {
            watcher.withheld.get_or_insert_default();
            self.suspects.insert(session_id);
        }
    }

    /// Pushes nothing to anybody until they have been suspected and their lists settled.
    pub fn withhold_all(&mut self) {
        for watcher in self.watchers.values_mut() {
            watcher.withheld.get_or_insert_default();
        }
    }

    /// As `suspect`, of all lists.
    pub fn suspect_all(&mut self) {
        for (session_id, watcher) in &mut self.watchers {
            watcher.withheld.get_or_insert_default();
            self.suspects.insert(*session_id);
        }
    }

    /// Takes the lists that have to be authorised again, but for those that are being made.
    pub fn take_suspects(&mut self) -> Vec<Suspect> {
        let (watchers, mut taken) = (&self.watchers, Vec::new());
        self.suspects.retain(|session_id| {
            let Some(watcher) = watchers.get(session_id) else { return false };
            if watcher.is_preparing {
                return true;
            }
            let (list, version) = ([&watcher.list[..], &watcher.hidden].concat(), watcher.version);
            taken.push(Suspect { session_id: *session_id, user_id: watcher.user_id, list, version });
            false
        });
        taken
    }

    /// Drops from a list that was authorised again whom it must not have, hides and shows others, and tells of them and of
    /// what was withheld. If it is another list by now, that one was authorised later.
    pub fn settle(&mut self, suspect: &Suspect, allowed: &Allowed) -> Pushes<C> {
        let session_id = suspect.session_id;
        let Some(mut watcher) = self.watchers.remove(&session_id) else { return Vec::new() };
        let mut news = HashSet::new();
        if watcher.version == suspect.version {
            let is_over = |user_id: &mut UserId| !allowed.known.contains(user_id);
            let dropped: Vec<_> = watcher.list.extract_if(.., is_over).collect();
            let forgotten: Vec<_> = watcher.hidden.extract_if(.., is_over).collect();
            let hiding: Vec<_> = watcher.list.extract_if(.., |user_id| allowed.hidden.contains(user_id)).collect();
            let showing: Vec<_> = watcher.hidden.extract_if(.., |user_id| !allowed.hidden.contains(user_id)).collect();
            self.begin_wait(&hiding);
            self.watch(session_id, &showing);
            self.unwatch(session_id, &[dropped, hiding.clone()].concat());
            self.end_wait(&[forgotten, showing.clone()].concat());
            news.extend(hiding.iter().chain(&showing));
            watcher.hidden.extend(hiding);
            watcher.list.extend(showing);
        }
        news.extend(watcher.withheld.take().unwrap_or_default());
        let mut pushes = Vec::new();
        if self.suspects.contains(&session_id) {
            watcher.withheld = Some(news);
        } else {
            let users = self.shown(&watcher, news.into_iter());
            pushes.extend((!users.is_empty()).then(|| (watcher.connection.clone(), users)));
        }
        self.keep(session_id, watcher);
        pushes
    }

    /// Forgets a connection and its list.
    pub fn forget(&mut self, session_id: SessionId) {
        if let Some(watcher) = self.watchers.remove(&session_id) {
            self.unwatch(session_id, &watcher.list);
            self.end_wait(&watcher.hidden);
        }
        self.suspects.remove(&session_id);
    }

    /// Everybody who is watched.
    pub fn watched(&self) -> Vec<UserId> {
        self.users.keys().copied().collect()
    }

    /// Pairs of a watcher and a user.
    pub const fn pairs(&self) -> usize {
        self.pairs
    }
}

impl<C> Watcher<C> {
    fn new(user_id: UserId, connection: C) -> Self {
        let (list, hidden) = (Vec::new(), Vec::new());
        Self { user_id, connection, list, hidden, version: 0, is_preparing: false, withheld: None }
    }

    fn is_idle(&self) -> bool {
        self.list.is_empty() && self.hidden.is_empty() && !self.is_preparing
    }
}

/// Whether somebody went so recently that they may be back before anybody is told. After a step back of the clock that is not
/// known, and they count as gone for longer.
fn went_just_now(seen: &Seen) -> bool {
    let is_recent =
        |last_seen_at: Timestamp| (last_seen_at..last_seen_at.after(limits::PRESENCE_GRACE)).contains(&seen.now);
    !seen.presence.is_online && seen.presence.last_seen_at.is_some_and(is_recent)
}

#[cfg(test)]
mod tests;
