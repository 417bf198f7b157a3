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
    assert!(text.err().starts_with("warning: no route uses credential `a`\n"), "{}", text.err());
    assert!(text.out().starts_with("proxy.toml is fine: 0 routes, 1 credential, 1 warning\n"), "{}", text.out());
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
    assert_eq!(dir.run(&["providers", "--format", "json"], &[]).json().as_array().map(Vec::len), Some(5));
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
