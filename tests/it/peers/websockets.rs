//! Python's `websockets` on both sides.

use super::Front;
use crate::support::{Process, PythonServer, eventually, python};

/// Lets the client go through everything; gives back what the server printed.
fn converse(upstream: &PythonServer, front: &Front, tls: bool) {
    let mut command = python("websockets/client.py");
    if tls {
        command.arg(front.tls_url().replace("https", "wss") + "/ws").arg(front.ca());
    } else {
        command.arg(front.url().replace("http", "ws") + "/ws");
    }
    let (status, output) = Process::spawn("websockets", &mut command).finish();
    assert!(status.success(), "{output}");
    for closed in ["CLOSED 1000 ", "CLOSED 1001 away", &format!("CLOSED 3456 {}", "ž".repeat(40))] {
        eventually(closed, || upstream.output().contains(closed));
    }
}

#[test]
#[ignore = "needs python3-websockets: run tests/run"]
fn pythons_websockets_speak_through_the_proxy_as_they_do_with_each_other() {
    let upstream = PythonServer::start("websockets/server.py", &[]);
    let url = format!("http://127.0.0.1:{}", upstream.port());
    let front = Front::start(&[("/ws", &url, "body_idle_timeout = \"2s\"")]);
    converse(&upstream, &front, false);
    converse(&upstream, &front, true);
    front.end();
}
