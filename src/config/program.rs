//! Programs that print secrets: run without a shell and without input, for ten seconds at most.

use std::{io, process::ExitStatus, process::Stdio};

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::secret::{ROOM, TIMEOUT};

/// No more of what it complains about is read.
const COMPLAINT: usize = 4096;

/// What a program left.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    /// Its standard output, one byte more than any secret at most.
    pub(super) text: Zeroizing<Vec<u8>>,
    /// Its standard error, where it was asked for.
    pub(super) complaint: String,
}

/// Why there is none, as a sentence's end.
pub(super) enum Failure {
    Start(io::Error),
    Broke(io::Error),
    Late,
}

/// Runs it; what it complains about is thrown away unless `listen`, since it may quote a secret. Killed when it takes
/// too long, or when nobody waits for it any more.
pub(super) async fn run(argv: &[&str], listen: bool) -> Result<Output, Failure> {
    tokio::time::timeout(TIMEOUT, run_now(argv, listen)).await.map_err(|_| Failure::Late)?
}

async fn run_now(argv: &[&str], listen: bool) -> Result<Output, Failure> {
    let (program, arguments) = argv.split_first().ok_or_else(|| Failure::Start(io::ErrorKind::NotFound.into()))?;
    let stderr = if listen { Stdio::piped() } else { Stdio::null() };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
    let mut child = command.spawn().map_err(Failure::Start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
    let mut complaint = Vec::new();
    let (printed, complained) = tokio::join!(
        async {
            match stdout {
                Some(stdout) => stdout.take(ROOM as u64).read_to_end(&mut text).await,
                None => Ok(0),
            }
        },
        async {
            match stderr {
                Some(stderr) => stderr.take(COMPLAINT as u64).read_to_end(&mut complaint).await,
                None => Ok(0),
            }
        }
    );
    printed.and(complained).map_err(Failure::Broke)?;
    if text.len() == ROOM {
        let _ = child.start_kill(); // it may go on printing for ever
    }
    let status = child.wait().await.map_err(Failure::Broke)?;
    Ok(Output { status, text, complaint: String::from_utf8_lossy(&complaint).trim().to_owned() })
}
