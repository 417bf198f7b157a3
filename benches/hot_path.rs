//! What one request costs on the data plane, without sockets: allocations and instructions.
//!
//! Neither drifts with the machine's load, so both can be held to recorded numbers, which should only
//! ever go down: `cargo bench --bench hot_path -- --smoke` fails where one is exceeded. Instructions are
//! counted by valgrind's callgrind: a run of 2 000 requests less a run of 1 000. Where they cannot be counted, that is
//! a failure with `--smoke`, for nothing was held, and told otherwise.
#![allow(unsafe_code, reason = "a global allocator that counts cannot be written without")]
#![allow(missing_docs, clippy::print_stdout)]

use std::{
    alloc::{GlobalAlloc, Layout},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cupbearer::{
    config::{self, secret::Secret},
    proxy::rig::Rig,
    snapshot::{Snapshot, seam},
    token::{
        bearer::{self, Bearer, Deadline, Now, Prover, View},
        dpop::ProofKey,
    },
};

/// Allocations of one request.
const ALLOCATIONS: u64 = 2;
/// Instructions of one request; up to 2 % more are let pass.
const INSTRUCTIONS: u64 = 22_040;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:8080"
[credentials.acme]
client_id = "acme"
client_secret = { env = "SECRET" }
client_auth = "post"
token_url = "http://127.0.0.1:9/token"
[[routes]]
prefix = "/ipxo/billing"
upstream = "http://127.0.0.1:9/billing"
credential = "acme"
allow = ["GET /**", "POST /v1/*/invoices/search"]
deny = ["DELETE /**"]
"#;

const REQUEST: &[u8] = b"GET /ipxo/billing/v1/tenant/invoices?page=2&per_page=15 HTTP/1.1\r\n\
Host: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\n\
Accept-Language: en\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\
Content-Type: application/json\r\nContent-Length: 26\r\nConnection: keep-alive\r\nVary: Accept-Encoding\r\n\
Cache-Control: no-store\r\n\r\n{\"invoices\":[1,2,3,4,5,6]}";

struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to mimalloc unchanged, which upholds the contract; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, hence from mimalloc.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, hence from mimalloc.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A core with a token that lives long enough; bound to a key where each request is to have a proof (RFC 9449).
fn rig(bound: bool) -> (Rig, bearer::Writer) {
    let env = |_: &str| Some("not-a-secret".to_owned());
    let text = if bound { CONFIG.replace("client_auth", "dpop = true\nclient_auth") } else { CONFIG.to_owned() };
    let (config, _) = config::parse(&text, &env).unwrap_or_else(|problems| panic!("{problems}"));
    let (writer, reader) = bearer::cell();
    let now = Now::read();
    let (mandatory, expires) =
        (Deadline::after(now, Duration::from_secs(3000)), Deadline::after(now, Duration::from_secs(3600)));
    let token = Secret::new("not-a-token-but-as-long-as-one-usually-is-0123456789".repeat(4));
    let proof = bound.then(|| Prover::new(Arc::new(ProofKey::generate().unwrap()), token.expose(), 0));
    let bearer =
        Bearer::new(token, "00000000".to_owned(), 1, now, mandatory, expires, false, now.mono).with_proof(proof);
    writer.publish(View { bearer: Some(bearer.into()), ..View::default() });
    let snapshot = Snapshot::compile(config, 1, None, |_| Ok(reader.clone())).unwrap();
    let (_, snapshots) = seam(snapshot);
    (Rig::new(snapshots).unwrap(), writer)
}

fn run(rig: &mut Rig, requests: u64) {
    for _ in 0..requests {
        let (forwarded, answered) = rig.request(REQUEST, RESPONSE).unwrap();
        assert!(forwarded > REQUEST.len() && answered > RESPONSE.len(), "{forwarded} {answered}");
    }
}

fn allocations() -> u64 {
    const REQUESTS: u64 = 1000;
    let (mut rig, _writer) = rig(false);
    run(&mut rig, 100);
    let before = ALLOCATED.load(Ordering::Relaxed);
    run(&mut rig, REQUESTS);
    (ALLOCATED.load(Ordering::Relaxed) - before).div_ceil(REQUESTS)
}

fn nanoseconds(requests: u64, bound: bool) -> u128 {
    let (mut rig, _writer) = rig(bound);
    run(&mut rig, 1000);
    let start = Instant::now();
    run(&mut rig, requests);
    start.elapsed().as_nanos() / u128::from(requests)
}

/// Instructions of so many requests and the start, counted by callgrind; the error says why there is no figure.
fn counted(requests: u64) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--requests", &requests.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start ({error}): is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("callgrind ended with {}:\n{text}", output.status));
    }
    let line = text.lines().find(|line| line.contains("Collected"));
    let figure = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    figure.ok_or_else(|| format!("callgrind told no figure:\n{text}"))
}

fn instructions() -> Result<u64, String> {
    let more = counted(2000)?;
    more.checked_sub(counted(1000)?).map(|of| of / 1000).ok_or_else(|| "more requests took fewer".to_owned())
}

/// Prints one figure and whether it is within its limit.
fn hold(what: &str, measured: u64, recorded: u64, limit: u64) -> bool {
    let verdict = match measured {
        n if n > limit => "MORE than recorded",
        n if n < recorded - recorded / 50 => "less than recorded: record it",
        _ => "as recorded",
    };
    println!("{what}: {measured} a request; recorded {recorded}: {verdict}");
    measured <= limit
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--requests") {
        let requests = arguments[at + 1].parse().unwrap();
        run(&mut rig(false).0, requests);
        return ExitCode::SUCCESS;
    }
    let smoke = arguments.iter().any(|a| a == "--smoke");
    let mut good = hold("allocations", allocations(), ALLOCATIONS, ALLOCATIONS);
    match instructions() {
        Ok(measured) => good &= hold("instructions", measured, INSTRUCTIONS, INSTRUCTIONS + INSTRUCTIONS / 50),
        Err(why) => {
            println!("instructions: not counted: {why}");
            good &= !smoke;
        }
    }
    if !smoke {
        let (plain, bound) = (nanoseconds(100_000, false), nanoseconds(20_000, true));
        println!("time: {plain} ns a request, one core, no system calls");
        println!(
            "      {bound} ns with a token that is bound to a key (DPoP, ES256): a proof costs {} ns",
            bound.saturating_sub(plain)
        );
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
