//! A log that was lost or exchanged is refused until somebody accepts the loss.

use chat_shared::log::LogState;

use super::place::{Place, items, now};
use crate::{forget_log::forget_log, open, source::Source};

#[tokio::test]
async fn a_log_that_lost_what_was_stored_is_refused_until_it_is_forgotten() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let events: Vec<_> = (0..3).map(|_| talk.message(now())).collect();
    // Stored from a log that reached 3; the one there is has nothing.
    place.keeper().keep(&items(1, &events)).await.unwrap();
    let error = open::check(&place.own_pool, &place.own_log).await.unwrap_err();
    assert!(format!("{error:#}").contains("forget-log"), "{error:#}");

    let name = &place.state.name;
    let error = forget_log(&place.store(), name, false).await.unwrap_err();
    assert!(error.to_string().contains("--yes"), "{error}");
    assert!(open::check(&place.own_pool, &place.own_log).await.is_err(), "asking changes nothing");
    forget_log(&place.store(), name, true).await.unwrap();
    assert_eq!(open::check(&place.own_pool, &place.own_log).await.unwrap(), place.state);
    forget_log(&place.store(), name, true).await.unwrap();
}

#[tokio::test]
async fn the_checkpoint_of_another_log_is_left_alone() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let events: Vec<_> = (0..3).map(|_| talk.message(now())).collect();
    place.keeper().keep(&items(1, &events[..2])).await.unwrap();
    let mut keeper = place.keeper();
    let state = LogState { created_at: now(), ..place.state.clone() };
    keeper.source = Some(Source { state, ..place.source() });
    keeper.keep(&items(900, &events[2..])).await.unwrap_err();
    let checkpoint = place.store().checkpoint(&place.state.name).await.unwrap();
    assert_eq!(checkpoint.map(|at| at.0), Some(2), "the exchanged log will be noticed");
    assert_eq!(place.stored(&talk).await.len(), 2, "and nothing of it is stored");
}
