//! Open files: each connection is one, and many systems let a process have a thousand unless it asks for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files besides clients' connections: those to servers, and the process' own.
const OTHER_FILES: u64 = 500;

/// Takes as many open files as the system allows, and warns if so many connections need more.
pub fn allow(connections_max: u64) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
    // None is as many as there may be.
    let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files_max < connections_max.saturating_add(OTHER_FILES) {
        tracing::warn!(
            files_max,
            connections_max,
            "this process may not open enough files for CHAT_CONNECTIONS_MAX connections; raise its limit (`ulimit -n`, \
             LimitNOFILE) or lower the setting, so that whoever finds no room is told"
        );
    }
}
