//! Settings of a stream with which promises can't be kept: somebody made or changed it so that it loses what it took.

use std::fmt;

use async_nats::jetstream::stream::Config;

/// A setting of a stream with which a promise can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its effect.
    effect: String,
    /// The option of `nats stream edit` that mends it; none if the stream has to be made anew.
    option: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.option {
            Some(option) => write!(f, "{} ({option})", self.effect),
            None => write!(f, "{} (this can't be edited: the stream has to be made anew)", self.effect),
        }
    }
}

/// The faults of a stream. Sizes and copies are the operator's choice and none of them.
pub(crate) fn faults(found: &Config, wanted: &Config) -> Vec<Fault> {
    let editable =
        |is_fault: bool, effect: String, option: String| is_fault.then_some(Fault { effect, option: Some(option) });
    let fixed = |is_fault: bool, effect: &str| is_fault.then(|| Fault { effect: effect.to_owned(), option: None });
    let missing = wanted.subjects.iter().find(|subject| !found.subjects.contains(subject));
    [
        editable(
            missing.is_some(),
            format!("it doesn't take {}", missing.map_or("", String::as_str)),
            format!("--subjects={}", wanted.subjects.join(",")),
        ),
        editable(
            found.discard != wanted.discard,
            "it drops entries when it is full".to_owned(),
            "--discard=new".to_owned(),
        ),
        editable(
            !found.max_age.is_zero() && found.max_age < wanted.max_age,
            format!("it keeps entries for {:?} only", found.max_age),
            format!("--max-age={}s", wanted.max_age.as_secs()),
        ),
        editable(
            found.max_messages_per_subject > 0,
            format!("it keeps {} entries of a subject only", found.max_messages_per_subject),
            "--max-msgs-per-subject=-1".to_owned(),
        ),
        editable(
            found.duplicate_window < wanted.duplicate_window,
            format!("it knows repeats for {:?} only", found.duplicate_window),
            format!("--dupe-window={}s", wanted.duplicate_window.as_secs()),
        ),
        editable(
            wanted.allow_direct && !found.allow_direct,
            "it can't be read directly".to_owned(),
            "--allow-direct".to_owned(),
        ),
        fixed(found.storage != wanted.storage, "it isn't kept in files"),
        fixed(found.retention != wanted.retention, "its retention policy removes other entries than this one's needs"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Refuses a stream that breaks promises.
pub(crate) fn refuse_faults(found: &Config, wanted: &Config) -> Result<(), Faults> {
    let faults = faults(found, wanted);
    if faults.is_empty() { Ok(()) } else { Err(Faults { stream: found.name.clone(), faults }) }
}

/// The faults of one stream that keep a service from using it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    stream: String,
    faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        let (stream, faults) = (&self.stream, faults.join("; "));
        write!(
            f,
            "the stream {stream} breaks promises: {faults}; change it with `nats stream edit {stream}` and these options, \
             and start again"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, StorageType};

    use super::*;
    use crate::log::{Replicas, topology::stream_config};

    #[test]
    fn each_setting_that_breaks_a_promise_is_refused() {
        let wanted = stream_config("chat", Replicas { count: 1, bytes_max: 1 << 20 });
        assert!(refuse_faults(&wanted, &wanted).is_ok());
        let day = Duration::from_hours(24);
        for (found, option) in [
            (Config { discard: DiscardPolicy::Old, ..wanted.clone() }, "--discard=new"),
            (
                Config { subjects: vec!["chat.*.fact".to_owned()], ..wanted.clone() },
                "--subjects=chat.*.message.*,chat.*.fact",
            ),
            (Config { max_age: day, ..wanted.clone() }, "--max-age=604800s"),
            (Config { duplicate_window: Duration::from_mins(2), ..wanted.clone() }, "--dupe-window=600s"),
            (Config { allow_direct: false, ..wanted.clone() }, "--allow-direct"),
            (Config { max_messages_per_subject: 1, ..wanted.clone() }, "--max-msgs-per-subject=-1"),
            (Config { storage: StorageType::Memory, ..wanted.clone() }, "made anew"),
            (Config { retention: RetentionPolicy::Interest, ..wanted.clone() }, "made anew"),
        ] {
            let error = refuse_faults(&found, &wanted).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains("nats stream edit chat-log"), "{error}");
        }
        for fine in [
            Config { max_age: Duration::ZERO, ..wanted.clone() },
            Config { max_age: day * 30, max_bytes: 1 << 30, num_replicas: 3, ..wanted.clone() },
        ] {
            assert!(refuse_faults(&fine, &wanted).is_ok());
        }
    }
}
