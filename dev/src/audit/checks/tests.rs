//! Each kind of violation is put into a made-up world in which all is well, and found by its check and, where it has no
//! other consequence, by that one alone.

mod ageing;
mod cases;
mod cold;

use std::time::Duration;

use chat_client::ids::MessageId;
use tokio::time::Instant;

use super::*;
use crate::audit::evidence::{AwayDevice, Head, Listed, Marked, Observed, Pushed, ReadMark, Sight};

const fn read_mark(conversation_id: ConversationId, user_id: UserId, read_seq: Seq) -> ReadMark {
    ReadMark { conversation_id, user_id, read_seq, since_seq: Seq::ZERO }
}

/// Two people with three devices in one conversation: four accepted messages and one that nobody knows of. A third takes
/// part, is away, and has two registered devices.
fn world() -> Evidence {
    let (asha, bikram, chandra) = (UserId::random(), UserId::random(), UserId::random());
    let conversation_id = ConversationId::random();
    let attempt = |number: u64, sender_id, fate| {
        let key = Key { conversation_id, sender_id, message_id: MessageId::random() };
        let answers = if let Fate::Accepted(place) = fate { vec![place] } else { Vec::new() };
        Attempt { key, text: format!("words {number}"), fate, answers }
    };
    let accepted = |seq: u64| Fate::Accepted(Place { seq: Seq(seq), sent_at: Timestamp(1000 + seq.cast_signed()) });
    let mut attempts: Vec<_> =
        (1..=4).map(|seq| attempt(seq, if seq % 2 == 1 { asha } else { bikram }, accepted(seq))).collect();
    let kept: Vec<_> = attempts.iter().filter_map(Attempt::kept).collect();
    attempts.push(attempt(5, asha, Fate::Unknown));
    // A removed user has tried to send.
    let dipa = UserId::random();
    attempts.push(attempt(6, dipa, Fate::NotSent));
    let messages: Vec<Message> = kept
        .iter()
        .map(|kept| Message {
            conversation_id,
            message_id: kept.key.message_id,
            sender_id: kept.key.sender_id,
            seq: kept.seq,
            sent_at: kept.sent_at,
            text: kept.text.clone(),
        })
        .collect();
    let device = |name: &str, user_id| DeviceRecord {
        name: name.to_owned(),
        user_id,
        messages: messages.clone(),
        skipped: 0,
        versions: BTreeMap::from([(conversation_id, 3)]),
        reads: BTreeMap::from([((conversation_id, asha), Seq(3)), ((conversation_id, bikram), Seq(3))]),
        reloaded_at: None,
    };
    let away = |name: &str| AwayDevice {
        name: name.to_owned(),
        user_id: chandra,
        notified: kept.iter().map(|kept| (conversation_id, kept.key.message_id)).collect(),
        unknown: BTreeSet::new(),
    };
    let sight = |user_id, is_there| Sight { watcher: "asha-1".to_owned(), user_id, told: Some(is_there), is_there };
    Evidence {
        rooms: vec![Room { id: conversation_id, members: vec![asha, bikram, chandra] }],
        rows: messages.iter().map(row).collect(),
        heads: vec![Head { conversation_id, last_seq: Seq(4), floor_seq: Seq(0), version: 3 }],
        reads: vec![
            read_mark(conversation_id, asha, Seq(3)),
            read_mark(conversation_id, bikram, Seq(4)),
            read_mark(conversation_id, chandra, Seq(0)),
        ],
        listed: vec![
            Listed { conversation_id, user_id: asha, last_seq: Seq(4), unread: 1 },
            Listed { conversation_id, user_id: bikram, last_seq: Seq(4), unread: 0 },
            Listed { conversation_id, user_id: chandra, last_seq: Seq(4), unread: 4 },
        ],
        history: messages.clone(),
        devices: vec![device("asha-1", asha), device("asha-2", asha), device("bikram-1", bikram)],
        away: vec![away("chandra-1"), away("chandra-2")],
        sights: vec![sight(bikram, true), sight(chandra, false)],
        pushed: vec![Pushed { device: "asha-1".to_owned(), connections: 2, times: vec![1, 1, 5, 2] }],
        marked: vec![
            Marked { conversation_id, user_id: asha, answered: Seq(1), tried: Seq(3), answered_at: None },
            Marked { conversation_id, user_id: bikram, answered: Seq(3), tried: Seq(3), answered_at: None },
        ],
        muted: BTreeSet::new(),
        informed: vec![(conversation_id, asha), (conversation_id, bikram), (conversation_id, dipa)],
        observed: vec![
            Observed { key: kept[0].key, user_id: asha, is_for_them: true, is_shown: true },
            Observed { key: kept[1].key, user_id: dipa, is_for_them: false, is_shown: false },
        ],
        forbidden: BTreeSet::from([attempts[5].key]),
        attempts,
        dead_letters: 0,
        dead_letters_expected: 0,
    }
}

fn row(message: &Message) -> Row {
    Row {
        conversation_id: message.conversation_id,
        seq: message.seq,
        sent_at: message.sent_at,
        message_id: message.message_id,
        sender_id: message.sender_id,
    }
}

/// What is found in a world after something happened to it.
fn found(happens: impl FnOnce(&mut Evidence)) -> Vec<(Check, u64)> {
    let mut evidence = world();
    happens(&mut evidence);
    let findings = audit(&evidence);
    findings.iter().filter(|finding| !finding.is_held()).map(|finding| (finding.check, finding.violations)).collect()
}

#[test]
fn in_a_world_where_all_is_well_everything_is_looked_at_and_nothing_found() {
    let findings = audit(&world());
    assert_eq!(found(|_| {}), []);
    let of = |check| findings.iter().find(|finding| finding.check == check).unwrap().of;
    assert_eq!(of(Check::NotStored), 4);
    assert_eq!(of(Check::NotInHistory), 4);
    assert_eq!(of(Check::NotShown), 12);
    assert_eq!(of(Check::ShownTwice), 12);
    assert_eq!(of(Check::OutOfOrder), 12);
    assert_eq!(of(Check::Holes), 4);
    assert_eq!(of(Check::TimeBackwards), 4);
    assert_eq!(of(Check::Phantoms), 4 + 4 + 12);
    assert_eq!(of(Check::Doubled), 4);
    assert_eq!(of(Check::Moved), 4 + 4 + 4 + 12);
    assert_eq!(of(Check::UnreadWrong), 3);
    assert_eq!(of(Check::NotNotified), 8);
    assert_eq!(of(Check::NotifiedTwice), 8);
    assert_eq!(of(Check::NotifiedWrongly), 8);
    assert_eq!(of(Check::PresenceWrong), 2);
    assert_eq!(of(Check::PushedTooOften), 4);
    assert_eq!(of(Check::MarksWrong), (1 + 1) + (1 + 2));
    assert_eq!(of(Check::MembersWrong), 1);
    assert_eq!(of(Check::ChangeNotTold), 3);
    assert_eq!(of(Check::AudienceWrong), 2);
    assert_eq!(of(Check::AcceptedWrongly), 1);
    assert_eq!(of(Check::DeadLetters), 6);
}

#[test]
fn a_message_whose_outcome_is_unknown_may_be_there_or_not() {
    let outcome = found(|world| {
        let key = world.attempts[4].key;
        let mut message = world.history[3].clone();
        (message.message_id, message.sender_id, message.seq) = (key.message_id, key.sender_id, Seq(5));
        message.text.clone_from(&world.attempts[4].text);
        world.rows.push(row(&message));
        for listed in &mut world.listed {
            listed.last_seq = Seq(5);
            listed.unread += u64::from(listed.user_id != key.sender_id);
        }
        world.reads[0].read_seq = Seq(5);
        world.listed[0].unread = 0;
        for device in &mut world.devices {
            device.messages.push(message.clone());
        }
        world.history.push(message);
    });
    assert_eq!(outcome, []);
}

#[test]
fn accepted_and_lost_in_postgres() {
    let outcome = found(|world| {
        world.rows.remove(1);
    });
    assert_eq!(outcome, [(Check::NotStored, 1), (Check::Holes, 1)]);
    let last = found(|world| {
        world.rows.pop();
    });
    assert!(last.contains(&(Check::NotStored, 1)) && last.contains(&(Check::Holes, 1)), "also at the end: {last:?}");
    let all = found(|world| world.rows.clear());
    assert!(all.contains(&(Check::NotStored, 4)) && all.contains(&(Check::Holes, 4)), "and all of them: {all:?}");
}

#[test]
fn missing_or_changed_in_history() {
    assert_eq!(found(|world| drop(world.history.remove(0))), [(Check::NotInHistory, 1)]);
    let changed = found(|world| world.history[0].text = "other words".to_owned());
    assert_eq!(changed, [(Check::NotInHistory, 1), (Check::Phantoms, 1)]);
}

#[test]
fn not_shown_to_one_device_of_several() {
    assert_eq!(found(|world| drop(world.devices[1].messages.pop())), [(Check::NotShown, 1)]);
    assert_eq!(found(|world| world.devices[2].messages.clear()), [(Check::NotShown, 4)]);
    assert_eq!(found(|world| world.devices[2].skipped = 1), [(Check::NotShown, 1)]);
}

#[test]
fn shown_twice() {
    let again = found(|world| {
        let last = world.devices[0].messages[3].clone();
        world.devices[0].messages.push(last);
    });
    assert_eq!(again, [(Check::ShownTwice, 1)]);
}

#[test]
fn shown_out_of_order() {
    assert_eq!(found(|world| world.devices[0].messages.swap(1, 2)), [(Check::OutOfOrder, 1)]);
}

#[test]
fn a_number_with_two_rows() {
    let outcome = found(|world| {
        let mut twin = world.rows[3];
        twin.message_id = world.attempts[4].key.message_id;
        twin.sender_id = world.attempts[4].key.sender_id;
        world.rows.push(twin);
        world.reads[0].read_seq = Seq(4);
        world.listed[0].unread = 0;
    });
    assert_eq!(outcome, [(Check::Holes, 1)]);
}

#[test]
fn a_number_that_only_the_conversation_counts() {
    assert_eq!(found(|world| world.heads[0].last_seq = Seq(5)), [(Check::Holes, 1)]);
}

#[test]
fn an_id_with_two_rows() {
    let outcome = found(|world| {
        let twin = Row { seq: Seq(5), ..world.rows[3] };
        world.rows.push(twin);
    });
    assert!(outcome.contains(&(Check::Doubled, 1)) && outcome.contains(&(Check::Moved, 1)), "{outcome:?}");
}

#[test]
fn time_that_runs_backwards() {
    let outcome = found(|world| {
        // As its sender was told, so nothing else is wrong with it.
        let early = Timestamp(1);
        let Fate::Accepted(place) = &mut world.attempts[2].fate else { unreachable!("it was accepted") };
        place.sent_at = early;
        world.attempts[2].answers[0].sent_at = early;
        world.rows[2].sent_at = early;
        world.history[2].sent_at = early;
        for device in &mut world.devices {
            device.messages[2].sent_at = early;
        }
    });
    assert_eq!(outcome, [(Check::TimeBackwards, 1)]);
}

#[test]
fn phantoms_that_nobody_sent_or_somebody_else_did() {
    let stranger = found(|world| {
        let mut message = world.history[3].clone();
        (message.message_id, message.seq) = (MessageId::random(), Seq(5));
        world.devices[0].messages.push(message);
    });
    assert_eq!(stranger, [(Check::Phantoms, 1)]);
    let by_another = found(|world| world.devices[0].messages[3].sender_id = UserId::random());
    assert_eq!(by_another, [(Check::NotShown, 1), (Check::Phantoms, 1)]);
    let with_other_words = found(|world| world.devices[0].messages[3].text.push('!'));
    assert_eq!(with_other_words, [(Check::Phantoms, 1)]);
    let never_sent = found(|world| world.attempts[3].fate = Fate::NotSent);
    let phantoms = [(Check::Phantoms, 1 + 1 + 3), (Check::NotifiedWrongly, 2)];
    assert_eq!(never_sent, phantoms, "its client said that no gateway ever got it");
}

#[test]
fn answers_that_change_and_places_that_move() {
    let answered = found(|world| {
        world.attempts[0].answers.push(Place { seq: Seq(9), sent_at: Timestamp(1001) });
    });
    assert_eq!(answered, [(Check::Moved, 1)]);
    let stored = found(|world| world.rows[0].sent_at = Timestamp(1000));
    assert_eq!(stored, [(Check::Moved, 1)]);
    let shown = found(|world| world.devices[0].messages[3].seq = Seq(7));
    assert_eq!(shown, [(Check::Moved, 1)]);
}

#[test]
fn lists_that_count_wrongly_or_lack_a_conversation() {
    assert_eq!(found(|world| world.listed[0].unread = 2), [(Check::UnreadWrong, 1)]);
    assert_eq!(found(|world| world.listed[1].last_seq = Seq(3)), [(Check::UnreadWrong, 1)]);
    assert_eq!(
        found(|world| {
            world.listed.pop();
        }),
        [(Check::UnreadWrong, 1)]
    );
    let own_unread = found(|world| {
        world.reads[0].read_seq = Seq(1);
        world.listed[0].unread = 3;
    });
    assert_eq!(own_unread, [(Check::UnreadWrong, 1)], "one's own messages are read");
}

#[test]
fn what_was_set_aside_and_what_should_have_been() {
    assert_eq!(found(|world| world.dead_letters = 2), [(Check::DeadLetters, 2)]);
    assert_eq!(found(|world| world.dead_letters_expected = 3), [(Check::DeadLetters, 3)]);
}

#[test]
fn not_notified_to_one_device_of_several() {
    assert_eq!(found(|world| world.away[1].notified.truncate(3)), [(Check::NotNotified, 1)]);
    assert_eq!(found(|world| world.away[0].notified.clear()), [(Check::NotNotified, 4)]);
    let in_flight = found(|world| {
        let Some((_, message_id)) = world.away[0].notified.pop() else { unreachable!() };
        world.away[0].unknown.insert(message_id);
    });
    assert_eq!(in_flight, [], "what was on its way as a notifier died may be lost");
}

#[test]
fn notified_twice() {
    let again = found(|world| {
        let first = world.away[0].notified[0];
        world.away[0].notified.push(first);
    });
    assert_eq!(again, [(Check::NotifiedTwice, 1)]);
    let in_flight = found(|world| {
        let first = world.away[0].notified[0];
        world.away[0].notified.push(first);
        world.away[0].unknown.insert(first.1);
    });
    assert_eq!(in_flight, [(Check::NotifiedTwice, 1)], "never twice, whatever was on its way");
}

#[test]
fn notified_in_a_muted_conversation() {
    let mute = |world: &mut Evidence| {
        let id = world.rooms[0].id;
        world.muted.insert((id, world.away[0].user_id));
    };
    let all = found(mute);
    assert_eq!(all, [(Check::NotifiedThoughMuted, 8)]);
    let by_one_provider = found(|world| {
        mute(world);
        world.away[0].notified.clear();
    });
    assert_eq!(by_one_provider, [(Check::NotifiedThoughMuted, 4)], "one provider is enough");
    let none = found(|world| {
        mute(world);
        world.away.iter_mut().for_each(|device| device.notified.clear());
    });
    assert_eq!(none, [], "and whoever mutes has to be notified of nothing");
}

#[test]
fn pushed_without_an_end() {
    assert_eq!(found(|world| world.pushed[0].times[1] = 6), [(Check::PushedTooOften, 1)]);
    let reconnected = found(|world| {
        world.pushed[0].times[1] = 6;
        world.pushed[0].connections = 3;
    });
    assert_eq!(reconnected, [], "each connection may begin with what was not confirmed");
}

#[test]
fn marks_that_are_lost_made_up_or_not_told() {
    let lost = found(|world| world.marked[0].answered = Seq(4));
    assert_eq!(lost, [(Check::MarksWrong, 1 + 1)], "neither kept nor told");
    let made_up = found(|world| {
        world.reads[2].read_seq = Seq(2);
        world.listed[2].unread = 2;
        let (conversation_id, user_id) = (world.rooms[0].id, world.reads[2].user_id);
        world.marked.push(Marked { conversation_id, user_id, answered: Seq(0), tried: Seq(1), answered_at: None });
    });
    assert_eq!(made_up, [(Check::MarksWrong, 1)]);
    let not_told = found(|world| {
        let key = (world.rooms[0].id, world.devices[0].user_id);
        world.devices[2].reads.remove(&key);
        world.marked[0].answered = Seq(3);
    });
    assert_eq!(not_told, [(Check::MarksWrong, 1)], "an own message says nothing of those before it");
    let not_told = found(|world| {
        let bikram = world.devices[2].user_id;
        let id = world.rooms[0].id;
        world.marked[1] = Marked {
            conversation_id: id,
            user_id: world.away[0].user_id,
            answered: Seq(1),
            tried: Seq(1),
            answered_at: None,
        };
        world.reads[2].read_seq = Seq(1);
        world.listed[2].unread = 3;
        world.devices.iter_mut().filter(|device| device.user_id != bikram).for_each(|device| {
            device.reads.insert((id, world.away[0].user_id), Seq(1));
        });
    });
    assert_eq!(not_told, [(Check::MarksWrong, 1)]);
    let reloaded = |after: u64| {
        found(|world| {
            let now = Instant::now();
            let key = (world.rooms[0].id, world.devices[2].user_id);
            world.devices[0].reads.remove(&key);
            world.devices[0].messages.retain(|message| message.sender_id != key.1);
            world.devices[0].reloaded_at = Some(now + Duration::from_secs(after));
            world.marked[1].answered_at = Some(now);
        })
    };
    let is_missed = |after| reloaded(after).iter().any(|(check, _)| *check == Check::MarksWrong);
    assert!(!is_missed(1), "a list is a moment behind");
    assert!(is_missed(60), "not for long");
}

#[test]
fn participants_other_than_answered() {
    let remained = found(|world| {
        let conversation_id = world.rooms[0].id;
        world.reads.push(read_mark(conversation_id, UserId::random(), Seq(0)));
    });
    assert_eq!(remained, [(Check::MembersWrong, 1)], "somebody who was removed");
    let missing = found(|world| {
        world.reads.pop();
    });
    assert!(missing.contains(&(Check::MembersWrong, 1)), "{missing:?}");
}

#[test]
fn devices_that_know_an_old_version() {
    assert_eq!(found(|world| world.heads[0].version = 4), [(Check::ChangeNotTold, 3)]);
    assert_eq!(found(|world| world.devices[1].versions.clear()), [(Check::ChangeNotTold, 1)]);
    let removed = |version: Option<u64>| {
        found(|world| {
            let id = world.rooms[0].id;
            let mut device = world.devices[0].clone();
            device.user_id = world.informed[2].1;
            device.messages.clear();
            device.versions = version.map(|version| (id, version)).into_iter().collect();
            world.devices.push(device);
        })
    };
    assert_eq!(removed(Some(2)), [(Check::ChangeNotTold, 1)], "the removed one still believes to take part");
    assert_eq!(removed(Some(3)), []);
    assert_eq!(removed(None), [], "the list leaves the conversation out");
}

#[test]
fn shown_to_whom_it_is_not_for() {
    assert_eq!(found(|world| world.observed[1].is_shown = true), [(Check::AudienceWrong, 1)], "to a removed user");
    assert_eq!(found(|world| world.observed[0].is_shown = false), [(Check::AudienceWrong, 1)], "not to an added user");
}

#[test]
fn accepted_from_whom_it_must_not_be() {
    let outcome = found(|world| {
        let key = world.attempts[0].key;
        world.forbidden.insert(key);
    });
    assert_eq!(outcome, [(Check::AcceptedWrongly, 1)]);
}

#[test]
fn notified_of_what_is_none_of_theirs() {
    let never_sent = found(|world| {
        let conversation_id = world.rooms[0].id;
        world.away[0].notified.push((conversation_id, MessageId::random()));
    });
    assert_eq!(never_sent, [(Check::NotifiedWrongly, 1)]);
    let own = found(|world| world.away[0].user_id = world.attempts[0].key.sender_id);
    assert_eq!(own, [(Check::NotifiedWrongly, 2)]);
    let elsewhere = found(|world| world.away[0].user_id = UserId::random());
    assert_eq!(elsewhere, [(Check::NotifiedWrongly, 4)]);
}

#[test]
fn told_wrongly_who_is_online() {
    assert_eq!(found(|world| world.sights[0].told = Some(false)), [(Check::PresenceWrong, 1)]);
    assert_eq!(found(|world| world.sights[1].told = Some(true)), [(Check::PresenceWrong, 1)]);
    assert_eq!(found(|world| world.sights[0].told = None), [(Check::PresenceWrong, 1)]);
}
