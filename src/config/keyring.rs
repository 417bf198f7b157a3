//! The keyring of the user's session, by the system's own tool: `secret-tool` (libsecret) for the Secret Service on Linux,
//! `security` for the keychain of macOS.
//!
//! A library would bring D-Bus with it: sixty crates, or a C library that a static binary cannot have.

use zeroize::Zeroizing;

use super::{
    program::{self, Failure},
    secret::TIMEOUT,
};

/// The secret of an account at a service; the error is a sentence, to stand behind a colon.
pub(super) async fn lookup(service: &str, account: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    if cfg!(target_os = "macos") { keychain(service, account).await } else { secret_service(service, account).await }
}

/// By the attributes that other programs use too: `service` and `username`.
async fn secret_service(service: &str, account: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let tool = |verb| ["secret-tool", verb, "service", service, "username", account];
    let found = program::run(&tool("lookup"), true).await.map_err(|f| failed(f, "secret-tool", "libsecret-tools"))?;
    if found.status.success() {
        return Ok(found.text);
    }
    if !found.complaint.is_empty() {
        return Err(format!(
            "there is no keyring to ask: {} (is there a session bus, and a keyring such as gnome-keyring on it?)",
            found.complaint.trim_start_matches("secret-tool: ")
        ));
    }
    // It says nothing of what it did not find, nor of what is locked; the latter can be searched for.
    let exists = program::run(&tool("search"), false).await.is_ok_and(|found| !found.text.is_empty());
    Err(if exists {
        "it is locked: unlock the keyring (log in to the session, or gnome-keyring-daemon --unlock)".to_owned()
    } else {
        format!("it is not there: secret-tool store --label=cupbearer service {service} username {account}")
    })
}

async fn keychain(service: &str, account: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let argv = ["security", "find-generic-password", "-s", service, "-a", account, "-w"];
    let found = program::run(&argv, false).await.map_err(|f| failed(f, "security", "part of macOS"))?;
    match found.status.code() {
        Some(0) => Ok(found.text),
        Some(44) => Err(format!("it is not there: security add-generic-password -s {service} -a {account} -w")),
        Some(36 | 51) => Err("it is locked: unlock the keychain (security unlock-keychain)".to_owned()),
        _ => Err(format!("security failed: {}", found.status)),
    }
}

fn failed(failure: Failure, tool: &str, package: &str) -> String {
    match failure {
        Failure::Start(e) if e.kind() == std::io::ErrorKind::NotFound => {
            format!("{tool} is not installed (package {package})")
        }
        Failure::Start(e) => format!("{tool} can't be started: {e}"),
        Failure::Broke(e) => format!("{tool} failed: {e}"),
        Failure::Late => {
            format!("it did not come within {} s: does the keyring wait for somebody to unlock it?", TIMEOUT.as_secs())
        }
    }
}
