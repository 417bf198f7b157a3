//! The sealed file store: a restart spends no token request.

use crate::support::{Cupbearer, TestDir, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// 32 bytes of `s`, in base64.
const SEAL_KEY: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

struct Setup {
    tokens: Upstream,
    api: Upstream,
    store: TestDir,
}

impl Setup {
    fn new() -> Self {
        Self { tokens: Upstream::tokens(3600), api: Upstream::always(OK), store: TestDir::new() }
    }

    fn start(&self, secret: &str) -> Cupbearer {
        let config = format!(
            "[tokens]\nstore = {{ file = \"{}\" }}\nseal_key = {{ env = \"SEAL_KEY\" }}\n\
             [credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\n[[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
            self.store.path().join("tokens").display(),
            self.tokens.url(),
            self.api.url()
        );
        Cupbearer::builder().env("SECRET", secret).env("SEAL_KEY", SEAL_KEY).start(&config)
    }

    fn token_requests(&self) -> usize {
        self.tokens.requests().len()
    }
}

#[test]
fn a_restart_even_by_kill_9_spends_no_token_request() {
    let setup = Setup::new();
    for round in 0..3 {
        let proxy = setup.start("not-a-secret");
        assert_eq!(proxy.get("/api").status, 200);
        assert_eq!(setup.token_requests(), 1, "round {round}");
        proxy.expect_never_printed(&["not-a-secret", "not-a-token", SEAL_KEY]);
        proxy.process().signal("KILL");
    }
    let carried: Vec<String> =
        setup.api.requests().iter().map(|r| r.header("authorization").unwrap_or_default().to_owned()).collect();
    assert_eq!(carried.len(), 3);
    assert!(carried.iter().all(|token| *token == carried[0]), "{carried:?}");
}

#[test]
fn a_token_got_with_another_secret_is_not_taken_from_the_store() {
    let setup = Setup::new();
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    assert_eq!(setup.start("not-a-secret-either").get("/api").status, 200);
    assert_eq!(setup.token_requests(), 2);
}

#[test]
fn a_store_full_of_rubbish_is_survived() {
    let setup = Setup::new();
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    let files = std::fs::read_dir(setup.store.path().join("tokens")).expect("the store's directory");
    for file in files {
        std::fs::write(file.expect("a file").path(), b"rubbish").expect("overwritten");
    }
    assert_eq!(setup.start("not-a-secret").get("/api").status, 200);
    assert_eq!(setup.token_requests(), 2);
}
