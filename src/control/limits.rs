//! What the operating system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: many systems start with 1024, and a running request
/// holds two. Warns where even that is too little for `max_connections`.
pub(super) fn raise_open_files(max_connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::debug!(?current, ?maximum, "the limit of open files stays as it is");
    }
    // Idle callers hold one descriptor, running requests two; not all of the connections run at a time.
    let needed = max_connections as u64 + 256;
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => tracing::warn!(
            allowed,
            needed,
            "too few open files are allowed for max_connections = {max_connections}; raise the hard limit (ulimit -Hn) or lower it"
        ),
        _ => {}
    }
}
