//! Grants beyond `client_credentials`, end to end.

use cupbearer::sandbox::{IX_API_KEY, IX_API_SECRET, Provider};

use crate::support::{Cupbearer, Playground, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn ix_api_is_logged_into_once_and_refreshed_from_then_on() {
    let sandbox = Playground::with(&["ix-api.idp=ttl:2"]);
    let secret = "{ env = \"SECRET\" }";
    let config = sandbox.credential("ix", Provider::IxApi, IX_API_KEY, secret, "warm = \"always\"")
        + &sandbox.route("/ix", "/ix-api/api/v2", "ix", "");
    let proxy = Cupbearer::builder().env("SECRET", IX_API_SECRET).start(&config);
    eventually("three tokens", || sandbox.tokens_issued(Provider::IxApi) >= 3);
    assert_eq!(proxy.get("/ix/connections").status, 200);
    let log = sandbox.expect_clean();
    assert_eq!(log.providers[&Provider::IxApi].clients[IX_API_KEY].requests, 1, "one login");
    proxy.expect_never_printed(&[IX_API_SECRET]);
}

#[test]
fn a_static_token_is_injected_and_its_file_followed() {
    let (api, dir) = (Upstream::always(OK), TestDir::new());
    let file = dir.write("token", "not-a-token-1\n");
    let config = format!(
        "[credentials.s]\ngrant = \"static\"\ntoken = {{ file = \"{}\" }}\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"s\"\n",
        file.display(),
        api.url()
    );
    let proxy = Cupbearer::builder().start(&config);
    let carried = |token: &str| {
        assert_eq!(proxy.get("/api/").status, 200);
        api.requests().last().is_some_and(|r| r.header("authorization") == Some(&format!("Bearer {token}")))
    };
    assert!(carried("not-a-token-1"));
    std::fs::write(&file, "not-a-token-2\n").unwrap();
    eventually("the new token", || carried("not-a-token-2"));
    proxy.expect_never_printed(&["not-a-token-1", "not-a-token-2"]);
}
