//! Open files: each connection is one, and many systems let a process have a thousand unless it asks for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that clients' connections leave to connections to servers, other services and operators, and to the process
/// itself. Without them `/livez` and `/readyz` could not be answered.
const RESERVED_FILES: u64 = 500;

/// Takes as many open files as the system allows, and gives how many connections there may be: `connections_max`, or
/// fewer, with a warning, where files are scarce.
pub fn allow(connections_max: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
    // None is as many as there may be.
    let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = connections_of(files_max).min(connections_max);
    if allowed < connections_max {
        tracing::warn!(
            files_max,
            connections_max,
            allowed,
            "this process may not open enough files for CHAT_CONNECTIONS_MAX connections, so it takes fewer; raise its limit \
             (`ulimit -n`, LimitNOFILE)"
        );
    }
    allowed
}

/// The connections that a number of files leaves room for: half of them, where the reserve would be more than that.
fn connections_of(files_max: u64) -> u64 {
    files_max.saturating_sub(RESERVED_FILES.min(files_max / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_everything_else() {
        let allowed = [0, 1, 256, 1024, 20_000].map(connections_of);
        assert_eq!(allowed, [1, 1, 128, 524, 19_500]);
        assert_eq!(connections_of(u64::MAX), u64::MAX - RESERVED_FILES);
    }
}
