//! What the user sees.

use std::fmt::Write as _;

use http::StatusCode;

use super::desk::Agreed;
use crate::sandbox::reply::{Reply, full, typed};

fn page(body: &str) -> Reply {
    let text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Sandbox login</title></head>\n<body>{body}</body></html>\n"
    );
    typed(StatusCode::OK, "text/html; charset=utf-8", full(text))
}

/// Asks for a yes or no; both lead to `here`, which has a query already.
pub(super) fn consent(agreed: &Agreed, here: &str) -> Reply {
    let Agreed { client, audience, scopes } = agreed;
    let here = escaped(here);
    page(&format!(
        "<h1>Allow {} to use {}?</h1>\n<p>It asks for: {}</p>\n\
         <p><a href=\"{here}&amp;consent=allow\">Allow</a> <a href=\"{here}&amp;consent=deny\">Deny</a></p>",
        escaped(client),
        escaped(audience),
        escaped(&scopes.join(" "))
    ))
}

/// Asks for the code of a device.
pub(super) fn enter_code(here: &str) -> Reply {
    page(&format!(
        "<h1>Enter the code</h1>\n<form action=\"{here}\"><input name=\"user_code\" autofocus> <button>Go on</button></form>"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Percent-encoded, all but RFC 3986's unreserved characters.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "%{other:02X}"); // a String takes all
            }
        }
    }
    out
}
