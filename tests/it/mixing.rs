//! Eight routes, eight tokens, two hundred callers at once, half of whom go away at a moment of their own:
//! each upstream only ever sees its own, and each caller only its own answer.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{Cupbearer, Upstream, eventually, expect_own_token, noise};

const ROUTES: usize = 8;
const CALLERS: usize = 200;
const ROUNDS: usize = 6;

/// Answers with its own number, the target, and the length of the body; now and then it closes.
fn api(number: usize) -> Upstream {
    Upstream::start(move |connection| {
        let mut served = 0;
        while let Some(request) = connection.request() {
            let answer = format!("{number} {} {}", request.target(), request.decoded_body().len());
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len()));
            connection.send(answer);
            served += 1;
            if served % 50 == 0 {
                return;
            }
        }
    })
}

#[test]
fn each_upstream_sees_only_its_own_token_and_each_caller_its_own_answer() {
    let apis: Vec<Upstream> = (0..ROUTES).map(api).collect();
    let tokens: Vec<Upstream> = (0..ROUTES).map(|n| Upstream::tokens_named(&format!("route{n}-"), 2)).collect();
    let config = (0..ROUTES)
        .map(|n| {
            format!(
                "[credentials.c{n}]\nclient_id = \"id{n}\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
                 token_url = \"{}/token\"\n[[routes]]\nprefix = \"/r{n}\"\nupstream = \"{}\"\ncredential = \"c{n}\"\n",
                tokens[n].url(),
                apis[n].url()
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let noise = noise(4000);
    let proxy = Cupbearer::builder().env("SECRET", "not-a-secret").start(&config);
    let descriptors = proxy.descriptors();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (proxy, noise) = (&proxy, noise.as_slice());
            scope.spawn(move || call(proxy, caller, noise));
        }
    });
    for (number, api) in apis.iter().enumerate() {
        expect_own_token(api, &format!("not-a-token-route{number}-"), "\0");
        // Lives of two seconds: a few per route, however many callers there are.
        let fetches = tokens[number].requests().len();
        assert!((1..40).contains(&fetches), "{fetches} token requests for route {number}");
    }
    let seen: usize = apis.iter().map(|api| api.heads().len()).sum();
    assert!(seen > CALLERS * ROUNDS / 2, "{seen}");
    // What is left are kept connections to the upstreams.
    let kept = || apis.iter().map(Upstream::open_connections).sum::<usize>();
    eventually("descriptors come back", || proxy.descriptors() <= descriptors + kept() + ROUTES);
    proxy.expect_never_printed(&["not-a-token", "not-a-secret", "panicked"]);
    proxy.stop();
}

/// Odd callers go away: before the answer, within the body, within the answer. Even ones stay and look.
fn call(proxy: &Cupbearer, caller: usize, noise: &[u8]) {
    let began = Instant::now();
    let host = proxy.address();
    let mut client = proxy.connect();
    for round in 0..ROUNDS {
        let route = (caller + round * 3) % ROUTES;
        let target = format!("/c{caller}/{round}");
        let body = &noise[..(caller * 37 + round * 501) % 3000];
        let head = format!("POST /r{route}{target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        if caller.is_multiple_of(2) {
            client.send(head);
            client.send(body);
            let response = client.response();
            assert_eq!((response.status, response.text()), (200, format!("{route} {target} {}", body.len())));
            continue;
        }
        client.send(head);
        match (caller / 2 + round) % 3 {
            0 => client.send(&body[..body.len() / 2]),
            1 => client.send(body),
            _ => {
                client.send(body);
                client.wait_for(b"HTTP/1.1 200 OK");
            }
        }
        if round % 2 == 0 {
            client.reset();
        } else {
            drop(client);
        }
        client = proxy.connect();
    }
    assert!(began.elapsed() < Duration::from_secs(60));
}
