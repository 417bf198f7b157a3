//! How connections to upstreams are made and kept: names and their lifetimes, several addresses, TLS sessions, connections
//! that are made before they are needed.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::support::{
    Ca, Client, Connection, Cupbearer, Dns, Ending, Mood, Scene, Stage, TlsUpstream, Upstream, eventually,
    h2::{Act, H2Upstream},
    listeners,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// A scene with a further route `/named` to `http://api.test:PORT`.
fn named(dns: &Dns, port: u16, lines: &str) -> Scene {
    let more = format!(
        "[[routes]]\nprefix = \"/named\"\nupstream = \"http://api.test:{port}\"\ninsecure_http = true\ncredential = \"c\"\n{lines}"
    );
    Stage::new(Upstream::always(OK)).server(&dns.line()).more(&more).start()
}

/// Answers every request, on connections that are kept or not.
fn server(listener: TcpListener, answer: &'static str) -> Upstream {
    Upstream::on(listener, move |connection| {
        while connection.request().is_some() {
            connection.send(answer);
            if answer == LAST {
                return;
            }
        }
    })
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("bound").port()
}

/// A socket on this address whose queue is full: the kernel drops what knocks. Holds what fills it.
fn black_hole(address: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let hole = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    hole.bind(&address.into()).expect("a free port");
    hole.listen(0).expect("it listens");
    let mut knocking = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        knocking.push(stream);
    }
    (hole, knocking)
}

#[test]
fn a_change_of_a_name_is_followed_within_its_lifetime_while_connections_are_busy() {
    let [old, new] = listeners(["127.0.0.2", "127.0.0.3"]);
    let (dns, port) = (Dns::start(), port(&old));
    dns.set("api.test", &["127.0.0.2"], 1);
    let (old, new) = (server(old, OK), server(new, OK));
    let scene = named(&dns, port, "");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for caller in 0..4 {
            let (scene, stop, served) = (&scene, &stop, &served);
            scope.spawn(move || {
                let mut client = scene.proxy.connect();
                while !stop.load(Ordering::SeqCst) {
                    let body = if caller % 2 == 0 { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
                    let method = if caller % 2 == 0 { "POST" } else { "GET" };
                    let text = format!("{method} /named/{caller} HTTP/1.1\r\nHost: HOST\r\n{body}");
                    assert_eq!(client.exchange(scene.fill(&text)).text(), "ok", "nothing is lost at the switch");
                    served.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        eventually("the old address is busy", || old.requests().len() > 20);
        let changed = Instant::now();
        dns.set("api.test", &["127.0.0.3"], 1);
        eventually("no request goes to the old address any more", || {
            let before = old.requests().len();
            thread::sleep(Duration::from_millis(200));
            old.requests().len() == before && old.open_connections() == 0
        });
        // A second of lifetime, five of grace; the rest is a machine's that has much to do.
        assert!(changed.elapsed() < Duration::from_secs(12), "{:?}", changed.elapsed());
        let before = new.requests().len();
        eventually("the new address is busy", || new.requests().len() > before + 20);
        stop.store(true, Ordering::SeqCst);
    });
    let sent = old.requests().len() + new.requests().len();
    assert_eq!(sent, served.load(Ordering::SeqCst), "each request was executed once");
    scene.end();
}

#[test]
fn a_shared_connection_follows_its_name_too() {
    let ca = Ca::new();
    let [old, new] = listeners(["127.0.0.2", "127.0.0.3"]);
    let (dns, at) = (Dns::start(), port(&old));
    let (certificate, key) = ca.issue(&["api.test"]);
    dns.set("api.test", &["127.0.0.2"], 1);
    let old = H2Upstream::on_tls(old, &certificate, &key, |_| Act::ok("old"));
    let new = H2Upstream::on_tls(new, &certificate, &key, |_| Act::ok("new"));
    let proxy = over_tls(&dns, &ca, &format!("https://api.test:{at}"), "");
    assert_eq!(proxy.get("/api/x").text(), "old");
    dns.set("api.test", &["127.0.0.3"], 1);
    eventually("requests go to the new address", || proxy.get("/api/x").text() == "new");
    assert_eq!(proxy.get("/api/x").text(), "new");
    assert_eq!((old.connections(), new.connections()), (1, 1), "one connection each");
}

/// A proxy with one route, trusting `ca`.
fn over_tls(dns: &Dns, ca: &Ca, upstream: &str, lines: &str) -> Cupbearer {
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server(&dns.line()).server("workers = 1");
    builder.file("ca.pem", ca.pem());
    builder.start(&format!(
        "[credentials.c]\ngrant = \"static\"\ntoken = {{ env = \"SECRET\" }}\nca_file = \"ca.pem\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{upstream}\"\ncredential = \"c\"\n{lines}"
    ))
}

#[test]
fn addresses_that_refuse_are_followed_by_the_next_and_load_spreads_over_the_good_ones() {
    let [refusing, one, two] = listeners(["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let (dns, port) = (Dns::start(), port(&one));
    drop(refusing);
    dns.set("api.test", &["127.0.0.2", "127.0.0.3", "127.0.0.4"], 60);
    let (one, two) = (server(one, LAST), server(two, LAST));
    let scene = named(&dns, port, "");
    for number in 0..20 {
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        assert_eq!(scene.proxy.request(method, "/named/x", "", b"").text(), "ok");
    }
    let (one, two) = (one.requests().len(), two.requests().len());
    assert_eq!(one + two, 20, "each was executed once");
    assert!(one >= 5 && two >= 5, "{one} and {two}");
    assert_eq!(dns.asked("api.test"), 2, "once for each family");
    scene.end();
}

#[test]
fn a_black_hole_among_the_addresses_does_not_use_up_connect_timeout() {
    let [hole, good] = listeners(["127.0.0.2", "127.0.0.3"]);
    let (dns, port) = (Dns::start(), port(&good));
    drop(hole);
    let hole = black_hole(SocketAddr::from(([127, 0, 0, 2], port)));
    dns.set("api.test", &["127.0.0.2", "127.0.0.3"], 60);
    let good = server(good, LAST);
    // Less than a head start for each: they share it.
    let scene = named(&dns, port, "connect_timeout = \"200ms\"\n");
    for _ in 0..10 {
        assert_eq!(scene.get("/named/x").text(), "ok");
    }
    assert_eq!(good.requests().len(), 10);
    drop(good);
    // All of them silent or closed.
    let problem = scene.get("/named/x");
    assert!([502, 504].contains(&problem.status), "{problem:?}");
    assert!(problem.text().contains("was not sent"), "{}", problem.text());
    drop(hole);
    scene.end();
}

#[test]
fn a_connection_that_breaks_off_in_its_handshake_is_followed_by_the_next_address() {
    let ca = Ca::new();
    let [resets, mute, good] = listeners(["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let (dns, at) = (Dns::start(), port(&good));
    let (certificate, key) = ca.issue(&["api.test"]);
    let resets = Upstream::on(resets, Connection::reset);
    let mute = Upstream::on(mute, Connection::wait_for_close);
    let good = TlsUpstream::on(good, &certificate, &key, OK, Ending::CloseNotify);
    dns.set("api.test", &["127.0.0.2", "127.0.0.3", "127.0.0.4"], 60);
    let lines = "http = \"h1\"\nconnect_timeout = \"2s\"\n";
    let proxy = over_tls(&dns, &ca, &format!("https://api.test:{at}"), lines);
    for _ in 0..6 {
        assert_eq!(proxy.request("POST", "/api/x", "", b"").text(), "ok");
    }
    assert!(resets.connections() <= 1 && mute.connections() <= 1, "what failed is tried last for a while");
    assert!(resets.connections() + mute.connections() >= 1);
    let received = String::from_utf8(good.received()).expect("text");
    assert_eq!(received.matches("POST /x HTTP/1.1\r\n").count(), 6, "each was executed once");
}

#[test]
fn a_wrong_certificate_is_an_answer_and_no_other_address_is_asked() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let [wrong, good] = listeners(["127.0.0.2", "127.0.0.3"]);
    let (dns, at) = (Dns::start(), port(&good));
    let of = |ca: &Ca| ca.issue(&["api.test"]);
    let (bad, fine) = (of(&other), of(&ca));
    let wrong = TlsUpstream::on(wrong, &bad.0, &bad.1, OK, Ending::CloseNotify);
    let good = TlsUpstream::on(good, &fine.0, &fine.1, OK, Ending::CloseNotify);
    dns.set("api.test", &["127.0.0.2", "127.0.0.3"], 60);
    let proxy = over_tls(&dns, &ca, &format!("https://api.test:{at}"), "http = \"h1\"\n");
    // The first address takes turns; each answer is final.
    let statuses: Vec<u16> = (0..4).map(|_| proxy.get("/api/x").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2, "{statuses:?}");
    assert_eq!((wrong.connections(), good.connections()), (2, 2));
    assert!(wrong.received().is_empty());
}

#[test]
fn a_name_that_cannot_be_resolved_is_told_honestly_and_found_as_soon_as_it_is_there() {
    let [listener] = listeners(["127.0.0.2"]);
    let (dns, port) = (Dns::start(), port(&listener));
    let _api = server(listener, LAST);
    let scene = named(&dns, port, "connect_timeout = \"1s\"\n");
    let failed = |part: &str| {
        let problem = scene.get("/named/x").expect_problem(502, "upstream_connect");
        let detail = problem["detail"].as_str().expect("text").to_owned();
        for part in ["name resolution failed for api.test", "was not sent", "Check the host", part] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
    };
    failed("no such name");
    dns.mood(Mood::Failing);
    eventually("the failure is not kept for long", || scene.get("/named/x").text().contains("SERVFAIL"));
    dns.mood(Mood::Silent);
    eventually("nobody waits for a silent server for ever", || scene.get("/named/x").text().contains("not answer"));
    failed("not answer");
    dns.mood(Mood::Good);
    dns.set("api.test", &["127.0.0.2"], 60);
    eventually("the name is found", || scene.get("/named/x").status == 200);
    scene.end();
}

#[test]
fn another_resolver_holds_from_the_reload_on_and_no_request_fails_for_it() {
    let [old, new] = listeners(["127.0.0.2", "127.0.0.3"]);
    let (before, after, port) = (Dns::start(), Dns::start(), port(&old));
    before.set("api.test", &["127.0.0.2"], 3600);
    after.set("api.test", &["127.0.0.3"], 3600);
    let (old, new) = (server(old, OK), server(new, OK));
    let scene = named(&before, port, "");
    assert_eq!(scene.get("/named/x").text(), "ok");
    assert_eq!(old.requests().len(), 1);
    let file = scene.proxy.dir().join("proxy.toml");
    let text = fs::read_to_string(&file).expect("it is there").replace(&before.line(), &after.line());
    fs::write(scene.proxy.dir().join("next"), text).expect("ours");
    fs::rename(scene.proxy.dir().join("next"), &file).expect("ours");
    scene.proxy.process().signal("HUP");
    eventually("the other one is asked", || {
        assert_eq!(scene.get("/named/x").text(), "ok");
        !new.requests().is_empty()
    });
    let sent = old.requests().len();
    for _ in 0..20 {
        assert_eq!(scene.get("/named/x").text(), "ok");
    }
    assert_eq!(old.requests().len(), sent, "no kept connection goes where the one before had sent it");
    scene.end();
}

#[test]
fn a_silent_resolver_is_blamed_also_where_a_connection_would_be_shared() {
    let (dns, ca) = (Dns::start(), Ca::new());
    dns.mood(Mood::Silent);
    // With TLS and `http = "auto"`: one request connects, the others wait for it.
    let proxy = over_tls(&dns, &ca, "https://api.test", "connect_timeout = \"500ms\"\n");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let response = proxy.get("/api/x");
                assert!([502, 504].contains(&response.status), "{}", response.text());
            });
        }
    });
    let problem = proxy.get("/api/x").expect_problem(502, "upstream_connect");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("name resolution failed for api.test") && detail.contains("not answer"), "{detail}");
}

#[test]
fn without_its_resolver_a_name_keeps_its_last_addresses_for_a_while() {
    let [listener] = listeners(["127.0.0.2"]);
    let (dns, port) = (Dns::start(), port(&listener));
    let _api = server(listener, LAST);
    dns.set("api.test", &["127.0.0.2"], 1);
    let scene = named(&dns, port, "");
    assert_eq!(scene.get("/named/x").status, 200);
    for mood in [Mood::Silent, Mood::Failing] {
        dns.mood(mood);
        let asked = dns.asked("api.test");
        eventually("its lifetime is over, and it was asked again", || {
            assert_eq!(scene.get("/named/x").text(), "ok", "{mood:?}");
            dns.asked("api.test") > asked + 6
        });
    }
    // That there is no such name is an answer.
    dns.mood(Mood::Good);
    dns.remove("api.test");
    eventually("the name is gone", || scene.get("/named/x").status == 502);
    scene.end_with(|proxy| {
        let output = proxy.stop();
        assert!(output.contains("the resolver gives no answer for api.test"), "{output}");
        output
    });
}

#[test]
fn many_that_need_a_name_at_once_ask_for_it_once() {
    let [listener] = listeners(["127.0.0.2"]);
    let (dns, port) = (Dns::start(), port(&listener));
    let _api = server(listener, LAST);
    dns.set("api.test", &["127.0.0.2"], 60);
    let more = format!(
        "[[routes]]\nprefix = \"/named\"\nupstream = \"http://api.test:{port}\"\ninsecure_http = true\ncredential = \"c\"\n"
    );
    let scene = Stage::new(Upstream::always(OK)).workers(2).server(&dns.line()).more(&more).start();
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(scene.get("/named/x").text(), "ok"));
        }
    });
    assert_eq!(dns.asked("api.test"), 2, "one question for each family: {:?}", dns.all_asked());
    scene.end();
}

#[test]
fn long_answers_come_over_tcp_and_forged_ones_are_not_believed() {
    for mood in [Mood::Long, Mood::Forged] {
        let [listener] = listeners(["127.0.0.2"]);
        let (dns, port) = (Dns::start(), port(&listener));
        let _api = server(listener, LAST);
        dns.set("api.test", &["127.0.0.2"], 60);
        dns.mood(mood);
        let scene = named(&dns, port, "");
        assert_eq!(scene.get("/named/x").text(), "ok", "{mood:?}");
        assert_eq!(dns.streams() > 0, mood == Mood::Long);
        scene.end();
    }
}

#[test]
fn ip_family_asks_for_that_family_alone() {
    let [listener] = listeners(["127.0.0.2"]);
    let (dns, at) = (Dns::start(), port(&listener));
    let _api = server(listener, LAST);
    dns.set("api.test", &["127.0.0.2", "fd00::dead"], 60);
    for (line, asked, status) in
        [("ip_family = \"v4\"", 1, 200), ("local_address = \"127.0.0.1\"", 1, 200), ("", 2, 200)]
    {
        let before = dns.asked("api.test");
        let more = format!(
            "[[routes]]\nprefix = \"/named\"\nupstream = \"http://api.test:{at}\"\ninsecure_http = true\ncredential = \"c\"\n"
        );
        let stage = Stage::new(Upstream::always(OK)).server(&dns.line()).more(&more).credential(line);
        let scene = stage.start();
        assert_eq!(scene.get("/named/x").status, status, "{line}");
        assert_eq!(dns.asked("api.test") - before, asked, "{line}");
        scene.end();
    }
}

#[test]
fn localhost_is_this_machine_and_no_resolver_is_asked() {
    let dns = Dns::start();
    dns.mood(Mood::Silent);
    let api = Upstream::always(OK);
    let Ok(six) = TcpListener::bind("[::1]:0") else {
        eprintln!("this machine has no IPv6: half of this test is skipped");
        return;
    };
    let at = port(&six);
    let six = server(six, OK);
    let more = format!(
        "[[routes]]\nprefix = \"/four\"\nupstream = \"http://localhost:{}\"\ncredential = \"c\"\n\
         [[routes]]\nprefix = \"/six\"\nupstream = \"http://v6.localhost:{at}\"\ncredential = \"c\"\n",
        api.address().port(),
    );
    let scene = Stage::new(Upstream::always(OK)).server(&dns.line()).more(&more).start();
    assert_eq!(scene.get("/four/x").text(), "ok");
    assert_eq!(scene.get("/six/x").text(), "ok", "nobody listens on 127.0.0.1 there");
    assert_eq!((six.requests().len(), dns.all_asked().len()), (1, 0));
    scene.end();
}

#[test]
fn the_second_handshake_goes_on_with_the_session_of_the_first() {
    let (ca, dns) = (Ca::new(), Dns::start());
    let (certificate, key) = ca.issue(&["localhost"]);
    let api = TlsUpstream::start(&certificate, &key, OK, Ending::CloseNotify);
    let proxy = over_tls(&dns, &ca, &api.url(), "http = \"h1\"\n");
    for handshakes in 1..=4 {
        assert_eq!(proxy.get("/api/x").text(), "ok");
        assert_eq!((api.handshakes(), api.resumed()), (handshakes, handshakes - 1));
    }
}

#[test]
fn sessions_are_not_shared_by_routes_that_trust_different_roots() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let (certificate, key) = ca.issue(&["localhost"]);
    let api = TlsUpstream::start(&certificate, &key, OK, Ending::CloseNotify);
    let builder = Cupbearer::builder().env("SECRET", "not-a-secret").server("workers = 1");
    builder.file("one.pem", ca.pem());
    builder.file("both.pem", format!("{}{}", ca.pem(), other.pem()));
    builder.file("other.pem", other.pem());
    let of = |name: &str| {
        format!(
            "[credentials.{name}]\ngrant = \"static\"\ntoken = {{ env = \"SECRET\" }}\nca_file = \"{name}.pem\"\n\
             [[routes]]\nprefix = \"/{name}\"\nupstream = \"{}\"\ncredential = \"{name}\"\nhttp = \"h1\"\n",
            api.url()
        )
    };
    let proxy = builder.start(&(of("one") + &of("both") + &of("other")));
    assert_eq!(proxy.get("/one/x").text(), "ok");
    assert_eq!(proxy.get("/both/x").text(), "ok");
    assert_eq!(api.resumed(), 0, "each has sessions of its own");
    proxy.get("/other/x").expect_problem(502, "upstream_tls");
    assert_eq!(proxy.get("/one/x").text(), "ok");
    assert_eq!(api.resumed(), 1);
}

#[test]
fn preconnect_makes_connections_ready_and_sends_nothing_on_them() {
    let (ca, dns) = (Ca::new(), Dns::start());
    let (certificate, key) = ca.issue(&["localhost"]);
    let api = TlsUpstream::start(&certificate, &key, OK, Ending::KeepAlive);
    let proxy = over_tls(&dns, &ca, &api.url(), "http = \"h1\"\npreconnect = 2\n");
    eventually("both are there", || api.handshakes() == 2);
    assert!(api.received().is_empty());
    for _ in 0..3 {
        assert_eq!(proxy.get("/api/x").text(), "ok");
    }
    assert_eq!(api.connections(), 2, "requests found a connection ready");
}

#[test]
fn preconnect_shares_one_connection_over_http_2() {
    let (ca, dns) = (Ca::new(), Dns::start());
    let (certificate, key) = ca.issue(&["localhost"]);
    let [listener] = listeners(["127.0.0.1"]);
    let at = port(&listener);
    let api = H2Upstream::on_tls(listener, &certificate, &key, |_| Act::ok("ok"));
    let proxy = over_tls(&dns, &ca, &format!("https://localhost:{at}"), "preconnect = 3\n");
    eventually("it is there", || api.connections() == 1);
    assert!(api.requests().is_empty());
    assert_eq!(proxy.get("/api/x").text(), "ok");
    assert_eq!(api.connections(), 1);
}

#[test]
fn preconnect_fails_no_start_and_is_tried_again() {
    let [listener] = listeners(["127.0.0.2"]);
    let (dns, at) = (Dns::start(), port(&listener));
    drop(listener);
    dns.set("api.test", &["127.0.0.2"], 1);
    let scene = named(&dns, at, "preconnect = 2\n");
    scene.get("/named/x").expect_problem(502, "upstream_connect");
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], at))).expect("still free");
    let api = server(listener, OK);
    eventually("connections are made once somebody is there", || api.open_connections() == 2);
    assert!(api.heads().is_empty());
    let mut client: Client = scene.send("GET /named/x HTTP/1.1\r\nHost: HOST\r\n\r\n");
    assert_eq!(client.response().text(), "ok");
    assert_eq!(api.connections(), 2);
    scene.end();
}

#[test]
fn a_resolver_that_is_none_is_refused_with_its_place() {
    let api = Upstream::always(OK);
    let builder = || Cupbearer::builder().env("SECRET", "not-a-secret");
    let config = format!(
        "[credentials.c]\ngrant = \"static\"\ntoken = {{ env = \"SECRET\" }}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        api.url()
    );
    for (line, part) in [
        ("resolver = [\"dns.example\"]", "is no address of a name server"),
        ("resolver = [\"127.0.0.1:0\"]", "is no address of a name server"),
        ("resolver = []", "is an empty list"),
        ("resolver = \"127.0.0.1\"", "a list of strings"),
    ] {
        let (status, output) = builder().server(line).start_badly(&config);
        assert_eq!(status.code(), Some(2), "{output}");
        assert!(output.contains(part), "{line}: {output}");
    }
    let line = "resolver = [\"127.0.0.1\", \"[::1]:5353\", \"::1\", \"[::1]\"]";
    assert_eq!(builder().server(line).start(&config).get("/api/x").text(), "ok");
}
