//! Looks at NATS and at the log's stream, and changes nothing.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::RequestErrorKind,
        response::Response,
        stream::{Config, Info},
    },
};

use super::{
    LogError, LogState, Replicas,
    faults::faults,
    topology::{NOT_FOUND, refuse_old_server, state_of, stream_config, stream_name},
};

/// How long JetStream may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The server's version.
    pub version: String,
    /// Bytes that the log may have; none if it hasn't been made yet, or without a limit.
    pub bytes_max: Option<i64>,
    /// How far the log goes; none if it hasn't been made yet.
    pub log: Option<LogState>,
    /// What of the stream breaks promises, and has to be changed.
    pub faults: Vec<String>,
    /// What of the stream is other than these settings ask for, which may be meant.
    pub differences: Vec<String>,
}

/// Looks at the server and at the namespace's stream.
pub async fn examine(client: &Client, namespace: &str, replicas: Replicas) -> Result<Examined, LogError> {
    let version = client.server_info().version;
    refuse_old_server(&version)?;
    let context = jetstream::ContextBuilder::new().timeout(ANSWER_MAX).build(client.clone());
    let asking = context.request(format!("STREAM.INFO.{}", stream_name(namespace)), &());
    let answer: Response<Info> = asking.await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => LogError::NoJetStream,
        _ => LogError::from_jetstream(error),
    })?;
    let nothing = Examined { version, bytes_max: None, log: None, faults: Vec::new(), differences: Vec::new() };
    match answer {
        Response::Ok(info) => Ok(compare(nothing, &info, &stream_config(namespace, replicas))),
        Response::Err { error } if error.code() == NOT_FOUND => Ok(nothing),
        Response::Err { error } if is_off(&error) => Err(LogError::NoJetStream),
        Response::Err { error } => Err(LogError::from_jetstream(error)),
    }
}

fn is_off(error: &jetstream::Error) -> bool {
    matches!(error.error_code(), ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT)
}

fn compare(examined: Examined, info: &Info, wanted: &Config) -> Examined {
    let found = &info.config;
    let differences = [
        (found.num_replicas != wanted.num_replicas)
            .then(|| format!("{} copies, not {} as CHAT_LOG_REPLICAS says", found.num_replicas, wanted.num_replicas)),
        (found.max_bytes != wanted.max_bytes)
            .then(|| format!("{} bytes, not {} as CHAT_LOG_BYTES_MAX says", found.max_bytes, wanted.max_bytes)),
        (!found.allow_atomic_publish).then(|| "allow_atomic is off, so events are appended one by one".to_owned()),
    ];
    Examined {
        bytes_max: Some(found.max_bytes).filter(|bytes_max| *bytes_max > 0),
        log: Some(state_of(info)),
        faults: faults(found, wanted).iter().map(ToString::to_string).collect(),
        differences: differences.into_iter().flatten().collect(),
        ..examined
    }
}
