use proptest::prelude::*;

use super::*;

/// Connections stand for themselves.
type Named = Lists<&'static str>;

fn presence(user_id: UserId, is_online: bool, last_seen_at: Option<i64>) -> Presence {
    Presence { user_id, is_online, last_seen_at: last_seen_at.map(Timestamp) }
}

fn came(user_id: UserId, at: i64) -> PresenceChange {
    PresenceChange { presence: presence(user_id, true, None), at: Timestamp(at) }
}

fn went(user_id: UserId, at: i64) -> PresenceChange {
    PresenceChange { presence: presence(user_id, false, Some(at)), at: Timestamp(at) }
}

fn seen(change: PresenceChange, at: i64) -> Seen {
    Seen { presence: change.presence, at: Timestamp(at), now: Timestamp(at) }
}

/// A connection that watches, and the first push.
fn watch(lists: &mut Named, name: &'static str, read: &[Seen]) -> (SessionId, Pushes<&'static str>) {
    let session_id = SessionId::random();
    let list: Vec<_> = read.iter().map(|seen| seen.presence.user_id).collect();
    lists.prepare(session_id, UserId::random(), name, &list);
    (session_id, lists.replace(session_id, &list, &HashSet::new(), read))
}

#[test]
fn the_first_push_has_everybody_and_later_ones_only_what_changed_r8_1() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    let (session_id, first) = watch(&mut lists, "watcher", &[seen(came(ana, 10), 50), seen(went(ben, 20), 9_000)]);
    assert_eq!(first, [("watcher", vec![came(ana, 0).presence, went(ben, 20).presence])]);
    assert_eq!(lists.learn(&[came(ana, 60), came(UserId::random(), 60)]), [], "nothing has changed for the watcher");
    assert_eq!(lists.learn(&[went(ana, 70)]), [("watcher", vec![went(ana, 70).presence])]);
    assert_eq!(lists.learn(&[came(ana, 65)]), [], "it is older than what is known");
    assert_eq!(lists.pairs(), 2);
    lists.forget(session_id);
    assert!(lists.users.is_empty() && lists.watchers.is_empty() && lists.pairs() == 0);
}

#[test]
fn a_change_while_the_list_is_being_made_is_in_the_first_push_r8_1() {
    let (mut lists, ana, session_id) = (Named::default(), UserId::random(), SessionId::random());
    lists.prepare(session_id, UserId::random(), "watcher", &[ana]);
    assert_eq!(lists.learn(&[came(ana, 51)]), []);
    let first = lists.replace(session_id, &[ana], &HashSet::new(), &[seen(went(ana, 10), 50)]);
    assert_eq!(first, [("watcher", vec![came(ana, 0).presence])]);
}

#[test]
fn a_reading_shows_the_change_of_its_number_and_what_became_of_it_r8_2() {
    let (mut lists, ana) = (Named::default(), UserId::random());
    watch(&mut lists, "watcher", &[seen(came(ana, 10), 50)]);
    assert_eq!(lists.learn(&[went(ana, 50)]), []);
    let without_lease = Seen { presence: presence(ana, false, None), ..seen(came(ana, 50), 50) };
    assert_eq!(lists.learn_read(&[without_lease]).0.len(), 1);
    assert_eq!(lists.learn(&[came(ana, 51)]).len(), 1);
    assert_eq!(lists.learn_read(&[without_lease]).0, [], "a reading from before the change");
}

#[test]
fn who_went_before_the_clock_was_set_back_is_gone_r8_2() {
    let (mut lists, ana) = (Named::default(), UserId::random());
    watch(&mut lists, "watcher", &[seen(came(ana, 10), 50)]);
    let (pushes, is_unsettled) = lists.learn_read(&[Seen { now: Timestamp(999), ..seen(went(ana, 1000), 1000) }]);
    assert_eq!((pushes.len(), is_unsettled), (1, false));
}

#[test]
fn a_refused_list_leaves_the_earlier_one() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    let (session_id, _) = watch(&mut lists, "watcher", &[seen(came(ana, 10), 50)]);
    lists.prepare(session_id, UserId::random(), "watcher", &[ben]);
    lists.give_up(session_id, &[ben]);
    assert_eq!(lists.learn(&[went(ben, 60)]), []);
    assert_eq!(lists.learn(&[went(ana, 60)]).len(), 1);
    assert_eq!(lists.users.len(), 1);
}

#[test]
fn whoever_comes_back_quickly_does_not_flicker_when_another_begins_to_watch_r8_2() {
    let (mut lists, ana) = (Named::default(), UserId::random());
    watch(&mut lists, "first", &[seen(came(ana, 10), 50)]);
    let (_, pushes) = watch(&mut lists, "second", &[seen(went(ana, 1000), 2000)]);
    assert_eq!(pushes, [("second", vec![came(ana, 0).presence])], "it is as good as there");
    assert_eq!(lists.learn_read(&[seen(went(ana, 1000), 5999)]), (vec![], true), "to be read again");
    let (pushes, is_unsettled) = lists.learn_read(&[seen(went(ana, 1000), 6000)]);
    assert_eq!((pushes.len(), is_unsettled), (2, false));
}

#[test]
fn who_is_not_allowed_any_more_is_dropped_unless_the_list_is_a_new_one() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    let (session_id, _) = watch(&mut lists, "watcher", &[seen(came(ana, 10), 50), seen(came(ben, 10), 50)]);
    lists.suspect(SessionId::random());
    assert_eq!(lists.take_suspects(), [], "who watches nobody is not suspect");
    lists.suspect(session_id);
    lists.prepare(session_id, UserId::random(), "watcher", &[ana]);
    assert_eq!(lists.take_suspects(), [], "the list is being made");
    lists.give_up(session_id, &[ana]);
    let suspects = lists.take_suspects();
    assert_eq!((suspects.len(), lists.take_suspects().len()), (1, 0));

    assert_eq!(lists.settle(&suspects[0], &allowed([ana], [])), []);
    assert_eq!(lists.learn(&[went(ben, 60)]), []);
    assert_eq!((lists.learn(&[went(ana, 60)]).len(), lists.pairs()), (1, 1));
    lists.prepare(session_id, UserId::random(), "watcher", &[ana]);
    lists.replace(session_id, &[ana], &HashSet::new(), &[]);
    assert_eq!(lists.settle(&suspects[0], &allowed([], [])), []);
    assert_eq!(lists.learn(&[came(ana, 70)]).len(), 1);
}

#[test]
fn while_a_list_is_suspect_nothing_is_pushed_and_afterwards_only_what_may_be_r6_4() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    let (session_id, _) = watch(&mut lists, "watcher", &[seen(came(ana, 10), 50), seen(came(ben, 10), 50)]);
    lists.suspect(session_id);
    assert_eq!(lists.learn(&[went(ana, 60), went(ben, 60)]), []);
    let suspects = lists.take_suspects();
    lists.suspect(session_id);
    assert_eq!(lists.settle(&suspects[0], &allowed([ana, ben], [])), [], "there is another reason by now");
    lists.prepare(session_id, UserId::random(), "watcher", &[ana, ben]);
    let read = [seen(went(ana, 60), 9_000), seen(came(ben, 70), 9_000)];
    assert_eq!(
        lists.replace(session_id, &[ana, ben], &HashSet::new(), &read),
        [],
        "nor is a list that was made before"
    );
    let suspects = lists.take_suspects();
    let pushes = lists.settle(&suspects[0], &allowed([ana], []));
    assert_eq!(pushes, [("watcher", vec![went(ana, 60).presence])]);
}

#[test]
fn what_is_withheld_from_all_is_pushed_once_their_lists_are_settled_r6_4() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    watch(&mut lists, "watcher", &[seen(came(ana, 10), 50), seen(came(ben, 10), 50)]);
    lists.withhold_all();
    assert_eq!(lists.take_suspects(), [], "nobody is asked yet");
    assert_eq!(lists.learn(&[went(ana, 60), went(ben, 60)]), []);
    lists.suspect_all();
    let suspects = lists.take_suspects();
    assert_eq!(suspects.len(), 1);
    assert_eq!(lists.settle(&suspects[0], &allowed([ana], [])), [("watcher", vec![went(ana, 60).presence])]);
}

#[test]
fn who_is_hidden_seems_to_be_away_until_they_are_shown_again_r6_4() {
    let (mut lists, [ana, ben]) = (Named::default(), [UserId::random(), UserId::random()]);
    let session_id = SessionId::random();
    lists.prepare(session_id, UserId::random(), "watcher", &[ana, ben]);
    let read = [seen(came(ana, 10), 50), seen(came(ben, 10), 50)];
    let away = |user_id| presence(user_id, false, None);
    let first = lists.replace(session_id, &[ana, ben], &HashSet::from([ana]), &read);
    assert_eq!(first, [("watcher", vec![away(ana), came(ben, 0).presence])]);
    assert_eq!(lists.learn(&[went(ana, 60)]), [], "whatever they do");
    let check = |lists: &mut Named, hidden: &[UserId]| {
        lists.suspect(session_id);
        let suspects = lists.take_suspects();
        lists.settle(&suspects[0], &allowed([ana, ben], hidden.iter().copied()))
    };
    assert_eq!(check(&mut lists, &[ana]), []);
    assert_eq!(check(&mut lists, &[]), [("watcher", vec![went(ana, 60).presence])], "as they are by now");
    assert_eq!(check(&mut lists, &[ben]), [("watcher", vec![away(ben)])]);
    assert_eq!((lists.pairs(), lists.users.len()), (1, 2));
    lists.forget(session_id);
    assert!(lists.users.is_empty() && lists.pairs() == 0);
}

fn allowed(known: impl IntoIterator<Item = UserId>, hidden: impl IntoIterator<Item = UserId>) -> Allowed {
    Allowed { known: known.into_iter().collect(), hidden: hidden.into_iter().collect() }
}

/// What may happen to the lists of three watchers and four users.
#[derive(Debug, Clone)]
enum Step {
    Watch { watcher: usize, users: HashSet<usize>, hidden: HashSet<usize>, is_online: bool, is_refused: bool },
    Change { user: usize, is_online: bool, at: i64 },
    Read { user: usize, is_online: bool, at: i64 },
    Suspect { watcher: usize },
    Authorise { watcher: usize, known: HashSet<usize>, hidden: HashSet<usize> },
    Forget { watcher: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let users = || proptest::collection::hash_set(0..4_usize, 0..4);
    prop_oneof![
        (0..3_usize, users(), users(), any::<bool>(), any::<bool>()).prop_map(
            |(watcher, users, hidden, is_online, is_refused)| {
                Step::Watch { watcher, users, hidden, is_online, is_refused }
            }
        ),
        (0..4_usize, any::<bool>(), 0..20_000_i64).prop_map(|(user, is_online, at)| Step::Change {
            user,
            is_online,
            at
        }),
        (0..4_usize, any::<bool>(), 0..20_000_i64).prop_map(|(user, is_online, at)| Step::Read { user, is_online, at }),
        (0..3_usize).prop_map(|watcher| Step::Suspect { watcher }),
        (0..3_usize, users(), users()).prop_map(|(watcher, known, hidden)| Step::Authorise { watcher, known, hidden }),
        (0..3_usize).prop_map(|watcher| Step::Forget { watcher }),
    ]
}

/// The lists, and what their watchers were told.
struct Story {
    lists: Lists<usize>,
    users: [UserId; 4],
    sessions: [SessionId; 3],
    told: [HashMap<UserId, Presence>; 3],
}

impl Story {
    fn new() -> Self {
        let (users, sessions) =
            (std::array::from_fn(|_| UserId::random()), std::array::from_fn(|_| SessionId::random()));
        Self { lists: Lists::default(), users, sessions, told: std::array::from_fn(|_| HashMap::new()) }
    }

    fn change(&self, user: usize, is_online: bool, at: i64) -> PresenceChange {
        if is_online { came(self.users[user], at) } else { went(self.users[user], at) }
    }

    fn tell(&mut self, pushes: Pushes<usize>) {
        for (watcher, presences) in pushes {
            self.told[watcher].extend(presences.into_iter().map(|presence| (presence.user_id, presence)));
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Watch { watcher, users, hidden, is_online, is_refused } => {
                let (session_id, list) = (self.sessions[watcher], users.iter().map(|user| self.users[*user]));
                let list: Vec<_> = list.collect();
                self.lists.prepare(session_id, UserId::random(), watcher, &list);
                if is_refused {
                    return self.lists.give_up(session_id, &list);
                }
                let read: Vec<_> = users.iter().map(|user| seen(self.change(*user, is_online, 30), 10_000)).collect();
                let hidden = hidden.into_iter().map(|user| self.users[user]).collect();
                let pushes = self.lists.replace(session_id, &list, &hidden, &read);
                self.told[watcher].clear();
                self.tell(pushes);
            }
            Step::Change { user, is_online, at } => {
                let pushes = self.lists.learn(&[self.change(user, is_online, at)]);
                self.tell(pushes);
            }
            Step::Read { user, is_online, at } => {
                let pushes = self.lists.learn_read(&[seen(self.change(user, is_online, at / 2), at)]).0;
                self.tell(pushes);
            }
            Step::Suspect { watcher } => self.lists.suspect(self.sessions[watcher]),
            Step::Authorise { watcher, known, hidden } => {
                self.lists.suspect(self.sessions[watcher]);
                let of = |users: HashSet<usize>| users.into_iter().map(|user| self.users[user]).collect::<Vec<_>>();
                let allowed = allowed(of(known), of(hidden));
                for suspect in self.lists.take_suspects() {
                    let pushes = self.lists.settle(&suspect, &allowed);
                    self.tell(pushes);
                }
            }
            Step::Forget { watcher } => self.lists.forget(self.sessions[watcher]),
        }
    }
}

proptest! {
    #[test]
    fn every_watcher_knows_what_is_known_and_nothing_is_kept_of_whom_nobody_watches(
        steps in proptest::collection::vec(steps(), 0..60)
    ) {
        let mut story = Story::new();
        for step in steps {
            story.take(step);
            let (lists, mut watched, mut pairs) = (&story.lists, HashSet::new(), 0);
            for (watcher, session_id) in story.sessions.iter().enumerate() {
                let Some(Watcher { list, hidden, withheld, .. }) = lists.watchers.get(session_id) else { continue };
                prop_assert!(!list.is_empty() || !hidden.is_empty());
                let is_due = |user_id: &&UserId| withheld.as_ref().is_none_or(|withheld| !withheld.contains(*user_id));
                for user_id in list.iter().filter(is_due) {
                    let known = lists.users[user_id].known.map(|known| known.presence);
                    prop_assert_eq!(story.told[watcher].get(user_id).copied(), known);
                }
                for user_id in hidden.iter().filter(is_due) {
                    prop_assert_eq!(story.told[watcher].get(user_id), Some(&presence(*user_id, false, None)));
                }
                for user_id in list {
                    prop_assert_eq!(lists.users[user_id].sessions.iter().filter(|other| *other == session_id).count(), 1);
                }
                pairs += list.len();
                watched.extend(list.iter().chain(hidden));
            }
            prop_assert_eq!(lists.pairs(), pairs);
            prop_assert_eq!(lists.users.keys().copied().collect::<HashSet<_>>(), watched);
        }
    }
}
