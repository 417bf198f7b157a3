//! The newcomer's first minute: `cupbearer demo`, and every line that it prints, as it is printed.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use cupbearer::sandbox::EXAMPLES;
use serde_json::Value;

use crate::support::{Client, Process};

/// It takes some 20 ms; a newcomer is promised a second, and a loaded machine is given more.
const PROMPT: Duration = Duration::from_secs(10);

struct Demo {
    process: Process,
    proxy: String,
    text: String,
}

fn demo() -> Demo {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cupbearer"));
    command.env_clear().args(["demo", "--port", "0"]);
    let process = Process::spawn("cupbearer demo", &mut command);
    let text = process.wait_for(|text| text.contains("Ctrl-C ends it.").then(|| text.to_owned()));
    let text = text.unwrap_or_else(|text| panic!("no introduction: {text}"));
    let proxy = text.lines().find_map(|line| line.strip_prefix("listening on ")).expect("a listener").to_owned();
    Demo { process, proxy, text }
}

impl Demo {
    /// The commands that are there to be tried, in order.
    fn commands(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.starts_with("curl ")).collect()
    }
}

/// What the shell gives for this line, character by character as it was printed. `$HOME/.curlrc` and proxy
/// variables of whoever runs the tests play no part.
fn sh(line: &str) -> String {
    let mut command = Command::new("sh");
    command.env("HOME", "/nonexistent").env("no_proxy", "127.0.0.1");
    let output = command.args(["-c", line]).output().expect("sh and curl are there");
    assert!(output.status.success(), "{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same command, made to print the status at the end whatever else it prints.
fn status(line: &str) -> u16 {
    let told = sh(&format!("{line} -w '\\n%{{http_code}}'"));
    told.lines().last().and_then(|l| l.parse().ok()).unwrap_or_else(|| panic!("{line}: {told}"))
}

#[test]
fn the_demo_stands_at_once_and_needs_no_file_and_no_environment() {
    let started = Instant::now();
    let demo = demo();
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
    assert_eq!(demo.commands().len(), EXAMPLES.len() + 3, "{}", demo.text);
}

#[test]
fn every_printed_line_works_as_it_is_printed() {
    let demo = demo();
    let commands = demo.commands();
    for (example, line) in EXAMPLES.iter().zip(&commands) {
        assert_eq!(*line, example.command(&demo.proxy));
        let said = sh(line);
        assert_eq!(status(line), example.status, "{line}: {said}");
        match example.status {
            _ if line.contains("/download") => {
                assert_eq!(said, "200 application/pdf 1000000 bytes\n", "{line}");
            }
            200 => {
                let answer: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"));
                assert!(answer.is_object() || answer.is_array(), "{line}: {said}");
            }
            202 => assert!(said.contains("\nlocation: /mythic/queue/vps/") && said.contains("VPSX4"), "{said}"),
            code => {
                assert!(said.starts_with(&format!("HTTP/1.1 {code} ")), "{line}: {said}");
                assert!(said.contains("urn:cupbearer:error:") && said.contains("Proxy-Status: cupbearer"), "{said}");
            }
        }
        assert!(said.ends_with('\n') || line.contains("vps"), "the prompt stands on a line of its own: {line}");
    }
    let [log, down, well] = &commands[EXAMPLES.len()..] else { panic!("{}", demo.text) };
    let log: Value = serde_json::from_str(&sh(log)).expect("the log is JSON");
    assert_eq!(log["strict_refusals"], serde_json::json!({}));
    let issued: u64 = log["providers"]
        .as_object()
        .expect("providers")
        .values()
        .map(|p| p["tokens_issued"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(issued, 8, "one token for each that is needed, however often each line was run: {log}");
    assert_eq!((status(down), status(well)), (200, 200));
    for secret in ["not-a-secret", "not-the-secret"] {
        assert!(!demo.process.output().contains(secret));
    }
}

#[test]
fn a_signal_ends_the_demo_with_status_0() {
    for signal in ["TERM", "INT"] {
        let demo = demo();
        let address = demo.proxy.trim_start_matches("http://").parse().expect("an address");
        let mut idle = Client::connect(address);
        let answer = idle.exchange(format!("GET /ipxo/billing/v1 HTTP/1.1\r\nHost: {address}\r\n\r\n"));
        assert_eq!(answer.status, 200);
        demo.process.signal(signal);
        let (status, output) = demo.process.finish();
        assert_eq!(status.code(), Some(0), "SIG{signal}: {output}");
        idle.expect_close();
    }
}
