//! A child process whose output is watched, and which never outlives its test.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::Instant,
};

use super::PATIENCE;

/// How many lines of its output are shown where the test has failed.
const SHOWN: usize = 40;

/// A running child. Dropping it kills it; where the test has failed, its output is shown first.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// What the child has printed so far, standard output and standard error together, and how many of the
/// two are still open.
struct Output {
    state: Mutex<(Vec<u8>, usize)>,
    changed: Condvar,
}

impl Process {
    /// Starts it. Its standard input stays open until it is dropped.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let output = Arc::new(Output { state: Mutex::new((Vec::new(), 2)), changed: Condvar::new() });
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![collect(stdout, Arc::clone(&output)), collect(stderr, Arc::clone(&output))];
        Self { name: name.to_owned(), child, output, readers }
    }

    /// Waits for a line that starts with `start` and gives back the rest of it. The error is what was
    /// printed instead, when the process ended or nothing came in time.
    pub(crate) fn wait_for_line(&self, start: &str) -> Result<String, String> {
        let found = self.wait_for(|text| {
            let mut lines: Vec<&str> = text.split('\n').collect();
            lines.pop(); // not ended by a newline: may still grow
            lines.iter().find_map(|line| line.strip_prefix(start)).map(|rest| rest.trim().to_owned())
        });
        found.map_err(|text| format!("{} did not print `{start}…`; it printed:\n{text}", self.name))
    }

    /// Waits until `check` finds in the output what it looks for; the error is all that was printed.
    pub(crate) fn wait_for<T>(&self, check: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.output.state.lock().expect("no reader panics");
        loop {
            let text = String::from_utf8_lossy(&state.0).into_owned();
            if let Some(found) = check(&text) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 == 0 || left.is_zero() {
                return Err(text);
            }
            state = self.output.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Everything printed so far, to both streams.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.state.lock().expect("no reader panics").0).into_owned()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `STOP`…
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.id().to_string()]).status();
        assert!(status.expect("`kill` runs").success(), "{} takes SIG{signal}", self.name);
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; gives back the status and all that it printed.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let all_said = self.wait_for_end();
        assert!(all_said, "{} did not end; it printed:\n{}", self.name, self.output());
        let status = self.child.wait().expect("the child is ours");
        (status, self.output())
    }

    fn wait_for_end(&self) -> bool {
        let state = self.output.state.lock().expect("no reader panics");
        let (state, _) =
            self.output.changed.wait_timeout_while(state, PATIENCE, |state| state.1 > 0).expect("no reader panics");
        state.1 == 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            let output = self.output();
            let from = output.lines().count().saturating_sub(SHOWN);
            let end: Vec<&str> = output.lines().skip(from).collect();
            eprintln!("--- {} printed, in its last {SHOWN} lines:\n{}", self.name, end.join("\n"));
        }
    }
}

/// Reads one of the child's streams to its end, line by line.
fn collect(stream: impl Read + Send + 'static, output: Arc<Output>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let ended = matches!(stream.read_until(b'\n', &mut line), Ok(0) | Err(_));
            let mut state = output.state.lock().expect("nobody panics while holding it");
            state.0.extend_from_slice(&line);
            if ended {
                state.1 -= 1;
            }
            drop(state);
            output.changed.notify_all();
            if ended {
                return;
            }
        }
    })
}
