//! `h2load` and `nghttp` as callers, `nghttpd` as an upstream: nghttp2 is what curl, Apache and many others speak HTTP/2 with.

use super::Front;
use crate::support::{Ca, Cupbearer, Nghttpd, TestDir, Upstream, eventually, noise, tool, try_tool};

const REQUESTS: usize = 300;

/// All of h2load's requests were answered with 2xx.
fn load(args: &[&str], url: &str) {
    let number = REQUESTS.to_string();
    let args: Vec<&str> = [&["-n", &number, "-c", "6", "-m", "20"], args, &[url]].concat();
    let told = String::from_utf8(tool("h2load", &args)).expect("text");
    let all = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(told.contains(&all), "{args:?}:\n{told}");
    assert!(told.contains(&format!("status codes: {REQUESTS} 2xx")), "{args:?}:\n{told}");
}

/// nghttpd in plain text and over TLS, and a server of HTTP/1.1, behind a proxy.
struct Setup {
    front: Front,
    plain: Nghttpd,
    tls: Nghttpd,
    h1: Upstream,
    dir: TestDir,
}

fn setup() -> Setup {
    let (ca, dir) = (Ca::new(), TestDir::new());
    let (certificate, key) = ca.issue(&["localhost"]);
    dir.write("tls.crt", certificate);
    dir.write("tls.key", key);
    dir.write("page", noise(20_000));
    let (plain, tls) = (Nghttpd::start(dir.path(), false), Nghttpd::start(dir.path(), true));
    let h1 = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = request.decoded_body();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
        }
    });
    let front = Front::with(
        &ca,
        Cupbearer::builder(),
        &[("/h1", &h1.url(), ""), ("/h2", &plain.url(), "http = \"h2\""), ("/tls", &tls.url(), "")],
        "ca.pem",
    );
    Setup { front, plain, tls, h1, dir }
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn every_request_of_h2load_succeeds_once_in_each_version_and_over_tls() {
    let setup = setup();
    let body = setup.dir.write("body", noise(30_000)).display().to_string();
    let mut sent = 0;
    for url in [setup.front.url(), setup.front.tls_url()] {
        for args in [&[][..], &["--h1", "-m", "1"], &["-d", &body]] {
            sent += REQUESTS;
            load(args, &format!("{url}/h1/page"));
            assert_eq!(setup.h1.requests().len(), sent, "{url} {args:?}");
            load(args, &format!("{url}/h2/page"));
            eventually("nghttpd got each once", || setup.plain.requests("/page") == sent);
            load(args, &format!("{url}/tls/page"));
            eventually("nghttpd got each once over TLS", || setup.tls.requests("/page") == sent);
        }
    }
    let told = setup.plain.output();
    let token = told.lines().filter(|line| line.ends_with(" authorization: Bearer not-a-token-1")).count();
    assert_eq!(token, sent, "each had the token");
    setup.front.end();
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn h2load_is_served_in_small_windows() {
    let setup = setup();
    for (url, path) in [(setup.front.url(), "/tls/page"), (setup.front.tls_url(), "/h2/page")] {
        load(&["-w", "10", "-W", "12"], &format!("{url}{path}"));
    }
    setup.front.end();
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn what_nghttp_uploads_comes_back_byte_for_byte() {
    let setup = setup();
    let body = noise(700_000);
    let file = setup.dir.write("upload", &body).display().to_string();
    let callers = [setup.front.url(), setup.front.tls_url()];
    for (number, path) in ["/h1/echo", "/h2/echo", "/tls/echo"].into_iter().enumerate() {
        for (other, more) in [
            &[][..],
            &["--no-content-length"],
            &["--padding=200", "--continuation"],
            &["--window-bits=12", "--connection-window-bits=13"],
            &["--trailer=x-sum: 7", "--no-content-length"],
            &["--expect-continue"],
            &["--header-table-size=0", "--encoder-header-table-size=0"],
        ]
        .into_iter()
        .enumerate()
        {
            let url = format!("{}{path}", callers[(number + other) % 2]);
            let args: Vec<&str> = [&["-y", "--data", &file], more, &[&url]].concat();
            let echoed = tool("nghttp", &args);
            assert!(echoed == body, "{args:?}: {} bytes came back", echoed.len());
        }
    }
    assert!(setup.h1.requests().iter().any(|r| r.body.ends_with(b"x-sum: 7\r\n\r\n")), "the trailers arrive");
    assert!(setup.plain.output().contains(" x-sum: 7"), "and over HTTP/2 too");
    setup.front.end();
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn many_streams_of_nghttp_share_a_connection() {
    let setup = setup();
    let url = format!("{}/h2/page", setup.front.url());
    // As many at once as clients assume to be allowed before they have read anything.
    let told = tool("nghttp", &["-n", "-s", "-m", "300", &url]);
    let told = String::from_utf8(told).expect("text");
    let served = told.lines().filter(|line| line.contains(" 200 ") && line.ends_with("/h2/page")).count();
    assert_eq!(served, 300, "{told}");
    setup.front.end();
}

#[test]
#[ignore = "needs nghttp2: run tests/run"]
fn an_upgrade_to_h2c_is_not_granted_and_the_request_answered_in_http_1() {
    let setup = setup();
    let url = format!("{}/h1/page", setup.front.url());
    let (_, stdout, stderr) = try_tool("nghttp", &["-v", "-u", &url]);
    let told = String::from_utf8_lossy(&stdout).into_owned() + &stderr;
    assert!(told.contains("HTTP/1.1 200"), "{told}");
    assert!(!told.contains("101 Switching"), "{told}");
    assert_eq!(setup.h1.requests()[0].header("upgrade"), None);
    setup.front.end();
}
