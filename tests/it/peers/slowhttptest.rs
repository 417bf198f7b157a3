//! slowhttptest: callers that send or read so slowly that each holds a connection.

use crate::support::{Scene, Stage, Upstream, tool};

const CONNECTIONS: &str = "300";

/// What it says in the end. It asks the proxy beside all that whether it is served.
fn attack(scene: &Scene, how: &[&str], path: &str) -> String {
    let url = format!("http://{}{path}", scene.proxy.address());
    let args: Vec<&str> = [how, &["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", "6", "-p", "3", "-u", &url]].concat();
    let told = String::from_utf8_lossy(&tool("slowhttptest", &args)).into_owned();
    assert!(told.contains("YES") && !told.contains("service available:   NO"), "{how:?}:\n{told}");
    told
}

#[test]
#[ignore = "needs slowhttptest: run tests/run"]
fn slow_heads_bodies_and_readers_are_ended_or_cost_little_and_others_are_served() {
    // No connection is kept idle, so that each that is open means a request that runs.
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n";
    let answer = [&head[..], &vec![b'x'; 300_000]].concat();
    let scene = Stage::new(Upstream::always(answer))
        .server("header_timeout = \"1500ms\"")
        .route("body_idle_timeout = \"1500ms\"")
        .start();
    assert_eq!(scene.get("/good/x").text(), "good");
    let (descriptors, memory) = (scene.proxy.descriptors(), scene.proxy.memory());
    // A field every second earns no more time for a head; a body that stands still is ended.
    for how in [&["-H", "-i", "1"][..], &["-B", "-i", "4", "-s", "8192"]] {
        assert!(attack(&scene, how, "/api/slow").contains("No open connections left"), "{how:?}");
    }
    // Readers that read, be it little, are served.
    attack(&scene, &["-X", "-n", "1", "-z", "32", "-w", "512", "-y", "1024"], "/api/large");
    scene.wait_for_descriptors(descriptors + 2);
    let left = scene.proxy.memory().saturating_sub(memory);
    assert!(left < 24 * 1024, "{left} KiB are left");
    scene.end();
}
