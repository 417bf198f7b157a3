//! The offline commands as a person runs them: exit code, standard output, standard error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A directory of its own, gone with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cupbearer-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    /// Runs cupbearer here, with nothing but `variables` in its environment.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cupbearer"));
        command.args(arguments).current_dir(&self.0).env_clear().envs(variables.iter().copied());
        Ran(command.output().expect("the binary runs"))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.stdout).expect("JSON on standard output")
    }
}

const IPXO: [(&str, &str); 2] = [("IPXO_CLIENT_ID", "my-id"), ("IPXO_CLIENT_SECRET", "not-a-secret")];

#[test]
fn init_writes_a_file_that_check_accepts_as_soon_as_its_variables_are_set() {
    let dir = Dir::new("init");
    let init = dir.run(&["init", "ipxo"], &[]);
    assert_eq!((init.code(), init.err().as_str()), (Some(0), ""));
    assert_eq!(
        init.out(),
        "wrote proxy.toml\nset IPXO_CLIENT_ID, IPXO_CLIENT_SECRET\nthen: cupbearer check -c proxy.toml\n"
    );
    let unset = dir.run(&["check"], &[]);
    assert_eq!((unset.code(), unset.out().as_str()), (Some(2), ""));
    assert!(unset.err().contains("environment variable IPXO_CLIENT_SECRET is not set"), "{}", unset.err());
    assert!(unset.err().ends_with("2 problems\n"), "{}", unset.err());
    let set = dir.run(&["check"], &IPXO);
    assert_eq!((set.code(), set.err().as_str()), (Some(0), ""), "{}", set.out());
    assert!(set.out().starts_with("proxy.toml is fine: 6 routes, 1 credential\n"), "{}", set.out());
    assert!(set.out().contains("/ipxo/billing"), "{}", set.out());
    assert!(!set.out().contains("not-a-secret"), "{}", set.out());
}

#[test]
fn init_never_overwrites() {
    let dir = Dir::new("overwrite");
    dir.write("proxy.toml", "# mine\n");
    let init = dir.run(&["init", "pax8"], &[]);
    assert_eq!(init.code(), Some(1));
    assert!(init.err().starts_with("error: proxy.toml exists and is not overwritten\n"), "{}", init.err());
    assert_eq!(fs::read_to_string(dir.path("proxy.toml")).expect("still there"), "# mine\n");
    assert_eq!(dir.run(&["init", "pax8", "-o", "other.toml"], &[]).code(), Some(0));
    assert!(Path::new(&dir.path("other.toml")).exists());
}

#[test]
fn init_knows_its_providers_and_helps_with_their_names() {
    let dir = Dir::new("unknown");
    let init = dir.run(&["init", "ipx"], &[]);
    assert_eq!((init.code(), init.out().as_str()), (Some(2), ""));
    assert_eq!(init.err(), "error: no provider is called `ipx`\n  hint: did you mean `ipxo`?\n");
    assert!(!dir.path("proxy.toml").exists());
    let shown = dir.run(&["init", "ipxo", "pax8", "ipxo", "--stdout"], &[]);
    assert_eq!(shown.code(), Some(0));
    assert_eq!(shown.out().matches("[credentials.").count(), 2);
    assert!(!dir.path("proxy.toml").exists());
}

#[test]
fn check_tells_every_problem_to_people_and_to_programs() {
    let dir = Dir::new("problems");
    dir.write("bad.toml", "[sevrer]\n[[routes]]\nprefix = \"x\"\n");
    let text = dir.run(&["check", "-c", "bad.toml"], &[]);
    assert_eq!((text.code(), text.out().as_str()), (Some(2), ""));
    assert!(text.err().contains("--> bad.toml:1:2\n"), "{}", text.err());
    let json = dir.run(&["check", "-c", "bad.toml", "--format", "json"], &[]);
    assert_eq!((json.code(), json.err().as_str()), (Some(2), ""));
    let answer = json.json();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["problems"][0]["hint"], "did you mean `server`?");
    assert_eq!(answer["problems"].as_array().map(Vec::len), Some(4));
}

#[test]
fn check_prints_warnings_beside_its_summary() {
    let dir = Dir::new("warnings");
    let unused =
        "[credentials.a]\nprovider = \"ipxo\"\nclient_id = \"a\"\nclient_secret = { env = \"IPXO_CLIENT_SECRET\" }\n";
    dir.write("proxy.toml", unused);
    let text = dir.run(&["check"], &IPXO);
    assert_eq!(text.code(), Some(0));
    assert!(text.err().starts_with("warning: there are no routes"), "{}", text.err());
    assert!(text.err().contains("\nwarning: no route uses credential `a`\n"), "{}", text.err());
    assert!(text.out().starts_with("proxy.toml is fine: 0 routes, 1 credential, 2 warnings\n"), "{}", text.out());
    let answer = dir.run(&["check", "--format", "json"], &IPXO).json();
    assert_eq!((&answer["ok"], &answer["warnings"][0]["line"]), (&true.into(), &1.into()));
    assert_eq!(answer["credentials"][0]["token_url"], "https://hydra.ipxo.com/oauth2/token");
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let dir = Dir::new("missing");
    let ran = dir.run(&["check"], &[]);
    assert_eq!(ran.code(), Some(2));
    assert!(
        ran.err().contains("can't read proxy.toml") && ran.err().contains("cupbearer init PROVIDER"),
        "{}",
        ran.err()
    );
}

#[test]
fn providers_lists_and_describes() {
    let dir = Dir::new("providers");
    let list = dir.run(&["providers"], &[]);
    assert_eq!((list.code(), list.err().as_str()), (Some(0), ""));
    for name in ["ipxo", "digital-realty", "ix-api", "pax8", "mythic-beasts"] {
        assert!(list.out().contains(&format!("  {name} ")), "{}", list.out());
        let one = dir.run(&["providers", name], &[]);
        assert_eq!(one.code(), Some(0));
        assert!(one.out().starts_with(&format!("{name}: ")) && one.out().contains("\nto know\n"), "{}", one.out());
    }
    assert_eq!(dir.run(&["providers", "--format", "json"], &[]).json().as_array().map(Vec::len), Some(50));
    let json = dir.run(&["providers", "pax8", "--format", "json"], &[]).json();
    assert_eq!(json["apis"][3]["audience"], "api://usage");
    let unknown = dir.run(&["providers", "pax9"], &[]);
    assert_eq!(
        (unknown.code(), unknown.err().as_str()),
        (Some(2), "error: no provider is called `pax9`\n  hint: did you mean `pax8`?\n")
    );
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let dir = Dir::new("usage");
    for wrong in [&["frobnicate"][..], &["check", "--nope"], &["init"], &["explain", "GET"], &["demo", "--port", "x"]] {
        let ran = dir.run(wrong, &[]);
        assert_eq!((ran.code(), ran.out().as_str()), (Some(2), ""), "{wrong:?}");
        assert!(ran.err().starts_with("error: "), "{wrong:?}: {}", ran.err());
    }
    for right in [&["--help"][..], &["--version"], &["check", "--help"], &["help", "explain"]] {
        let ran = dir.run(right, &[]);
        assert_eq!((ran.code(), ran.err().as_str()), (Some(0), ""), "{right:?}");
    }
    assert_eq!(dir.run(&["--version"], &[]).out(), format!("cupbearer {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_planned_is_refused_by_name() {
    let dir = Dir::new("planned");
    let ran = dir.run(&["status", "--watch"], &[]);
    assert_eq!((ran.code(), ran.out().as_str()), (Some(2), ""));
    assert!(ran.err().starts_with("error: `cupbearer status` is not built yet\n"), "{}", ran.err());
}

#[test]
fn completions_are_there_for_the_common_shells() {
    let dir = Dir::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let ran = dir.run(&["completions", shell], &[]);
        assert_eq!((ran.code(), ran.err().as_str()), (Some(0), ""));
        assert!(ran.out().contains("cupbearer") && ran.out().contains("every-token"), "{}", ran.out());
    }
    assert_eq!(dir.run(&["completions", "cmd"], &[]).code(), Some(2));
}

#[test]
fn the_file_is_named_before_or_behind_the_commands_that_read_one() {
    let dir = Dir::new("file");
    dir.write("other.toml", "[server]\nlisten = \"127.0.0.1:0\"\n");
    for right in [&["check", "-c", "other.toml"][..], &["-c", "other.toml", "check"], &["check", "--config=other.toml"]]
    {
        assert_eq!(dir.run(right, &[]).code(), Some(0), "{right:?}");
    }
    for (command, reads) in [("serve", true), ("check", true), ("explain", true), ("demo", false), ("providers", false)]
    {
        let help = dir.run(&["help", command], &[]).out();
        assert_eq!(help.contains("--config"), reads, "{help}");
    }
    assert_eq!(dir.run(&["providers", "-c", "other.toml"], &[]).code(), Some(2));
}

/// Two callers and one route with rules, in front of nothing.
const GUARDED: &str = r#"
[callers.erp]
api_key = { env = "ERP_KEY" }
routes = ["/api"]
allow = ["GET,POST /**"]

[callers.lan]
cidr = ["10.1.0.0/16"]

[credentials.acme]
client_id = "my-id"
client_secret = { env = "SECRET" }
token_url = "http://127.0.0.1:9/token"

[[routes]]
prefix = "/api"
upstream = "http://127.0.0.1:9/v1"
credential = "acme"
scopes = ["read"]
allow = ["GET /**", "POST /*/search"]
deny = ["GET /secret/**"]
set_headers = { x-client = "{client_id}" }
remove_headers = ["cookie"]
replay_buffer = "1KiB"
max_body = "1MiB"

[[routes]]
prefix = "/trial"
upstream = "http://127.0.0.1:9/v1"
credential = "acme"
scopes = ["read"]
deny = ["* /**"]
mode = "report"
"#;

const GUARDED_ENV: [(&str, &str); 2] = [("ERP_KEY", "not-a-secret-but-long"), ("SECRET", "not-a-secret")];

#[test]
fn explain_tells_the_whole_story_of_a_request_that_would_be_forwarded() {
    let dir = Dir::new("explain");
    dir.write("proxy.toml", GUARDED);
    let ran = dir.run(&["explain", "POST", "/api/orders/search?q=a%2Fb&x", "--caller", "erp"], &GUARDED_ENV);
    assert_eq!((ran.code(), ran.err().as_str()), (Some(0), ""));
    assert_eq!(
        ran.out(),
        r"POST /api/orders/search?q=a%2Fb&x
allowed by the route's allow rule `POST /*/search`, and by caller `erp`'s own rules

  route       /api ([[routes]] 1 of 2)
  caller      erp (api key)
  upstream    http://127.0.0.1:9/v1/orders/search?q=a%2Fb&x
  credential  acme (post form)
  token       scopes read; from http://127.0.0.1:9/token; shared with /trial
  timeouts    connect 5s, response head 60s, idle body 60s
  replay      once, with a new token, after a 401 that blames the token, if its body has at most 1 KiB
  body        at most 1 MiB (max_body)

sent to the upstream, beside the caller's other headers
  POST /v1/orders/search?q=a%2Fb&x HTTP/1.1
  Host: 127.0.0.1:9
  X-Forwarded-For: 127.0.0.1
  X-Forwarded-Proto: http
  X-Forwarded-Host: 127.0.0.1:8080
  Via: 1.1 cupbearer
  X-Request-Id: <request id>
  x-client: my-id
  Authorization: Bearer <token of acme>

left out wherever a caller sends it
  Authorization, DPoP, X-Api-Key, Cookie, Proxy-Authorization, Forwarded, X-Forwarded-For, X-Real-Ip, X-Original-Url, X-Rewrite-Url, X-Http-Method-Override, Connection, Keep-Alive, Upgrade, x-client
"
    );
}

#[test]
fn explain_names_the_rule_that_denies_and_whose_fault_it_is() {
    let dir = Dir::new("explain-no");
    dir.write("proxy.toml", GUARDED);
    let of = |arguments: &[&str]| {
        let ran = dir.run(&[&["explain"], arguments].concat(), &GUARDED_ENV);
        assert_eq!((ran.code(), ran.err().as_str()), (Some(4), ""), "{arguments:?}: {}", ran.out());
        ran.out()
    };
    assert_eq!(
        of(&["GET", "/api/%73ecret/1", "--caller", "erp"]),
        "GET /api/%73ecret/1\nanswered by cupbearer: 403 policy_denied (blame: caller)\n\
         the route's deny rule `GET /secret/**` covers this request\n\n  \
         route   /api ([[routes]] 1 of 2)\n  caller  erp (api key)\n"
    );
    assert_eq!(
        of(&["GET", "/api/x"]),
        "GET /api/x\nanswered by cupbearer: 401 caller_unknown (blame: caller)\n\
         the request does not identify itself as a known caller\n\n  \
         route   /api ([[routes]] 1 of 2)\n  caller  not identified\n\n\
         hint: --caller NAME asks for one of erp, lan\n"
    );
    assert!(of(&["DELETE", "/api/x", "--caller", "lan"]).contains("no allow rule of the route covers this method"));
    assert!(of(&["GET", "/apis", "--caller", "erp"]).ends_with("\nhint: did you mean `/api`?\n"));
    assert!(of(&["get", "/api/x"]).contains("400 bad_request"));
    assert!(of(&["GET", "/api/../token"]).contains("400 bad_path"));
    assert!(of(&["GET", "http://evil.example/api/x"]).contains("421 misdirected"));
    assert!(of(&["TRACE", "/api/x"]).contains("405 method_refused"));
}

#[test]
fn explain_tells_what_report_mode_lets_through_and_speaks_json() {
    let dir = Dir::new("explain-json");
    dir.write("proxy.toml", GUARDED);
    let ran = dir.run(&["explain", "GET", "/trial/x", "--caller", "lan"], &GUARDED_ENV);
    assert_eq!(ran.code(), Some(0));
    let line = "allowed, but only as mode = \"report\": else policy_denied, the route's deny rule `* /**` covers";
    assert!(ran.out().contains(line), "{}", ran.out());
    assert!(ran.out().contains("X-Forwarded-For: 10.1.0.0\n"), "{}", ran.out());
    let json = dir.run(&["explain", "GET", "/api/x", "--caller", "erp", "--format", "json"], &GUARDED_ENV).json();
    assert_eq!((&json["allowed"], &json["rule"]), (&true.into(), &"GET /**".into()));
    assert_eq!(json["upstream"]["url"], "http://127.0.0.1:9/v1/x");
    assert_eq!(json["token"]["shared_with"][0], "/trial");
    let json =
        dir.run(&["explain", "GET", "/api/secret/x", "--caller", "erp", "--format", "json"], &GUARDED_ENV).json();
    assert_eq!((&json["allowed"], &json["rule"]), (&false.into(), &"GET /secret/**".into()));
    assert_eq!((&json["answer"]["status"], &json["answer"]["code"]), (&403.into(), &"policy_denied".into()));
}

#[test]
fn explain_helps_with_a_caller_that_does_not_exist_and_reads_bad_files_like_check() {
    let dir = Dir::new("explain-usage");
    dir.write("proxy.toml", GUARDED);
    let typo = dir.run(&["explain", "GET", "/api/x", "--caller", "epr"], &GUARDED_ENV);
    assert_eq!((typo.code(), typo.out().as_str()), (Some(2), ""));
    assert_eq!(typo.err(), "error: no caller is called `epr`\n  hint: did you mean `erp`?\n");
    let odd = dir.run(&["explain", "GET", "/api/x", "--caller", "somebody"], &GUARDED_ENV);
    assert_eq!(odd.err(), "error: no caller is called `somebody`\n  hint: there is erp, lan\n");
    let control = dir.run(&["explain", "GET", "/api/x\r\nHost: y"], &GUARDED_ENV);
    assert_eq!((control.code(), control.out().as_str()), (Some(2), ""));
    let bad = dir.run(&["explain", "GET", "/api/x"], &[]);
    assert_eq!(bad.code(), Some(2));
    assert!(bad.err().contains("environment variable SECRET is not set"), "{}", bad.err());
}
