use std::{fs, path::PathBuf, time::Instant};

use super::*;
use crate::config::{
    load, load_pausing,
    secret::{SecretError, SecretSource},
};

/// A directory of its own, gone with the value.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cupbearer-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(words: &[&str]) -> SecretSource {
    SecretSource::Command(words.iter().map(|w| (*w).to_owned()).collect())
}

#[test]
fn a_secret_file_is_found_beside_the_configuration_and_read_without_its_newline() {
    let dir = Dir::new("file");
    dir.file("acme.secret", "not-a-secret\r\n");
    let path = dir.file("proxy.toml", &BASE.replace("{ env = \"SECRET\" }", "{ file = \"acme.secret\" }"));
    let (config, warnings) = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(warnings, []);
    let source = config.credentials[0].client_secret.clone().unwrap();
    assert_eq!(source, SecretSource::File(dir.0.join("acme.secret")));
    assert_eq!(source.read_blocking().unwrap().expose(), "not-a-secret");
}

#[test]
fn the_path_of_a_secret_file_may_hold_variables() {
    let dir = Dir::new("variable");
    dir.file("acme.secret", "not-a-secret");
    let path = dir.0.display().to_string();
    let text = BASE.replace("{ env = \"SECRET\" }", "{ file = \"${DIR}/acme.secret\" }");
    let (config, _) = parse(&text, &|name| (name == "DIR").then(|| path.clone())).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(config.credentials[0].client_secret, Some(SecretSource::File(dir.0.join("acme.secret"))));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_a_problem_of_its_own() {
    let dir = Dir::new("none");
    let Problems(list) = load(&dir.0.join("proxy.toml")).unwrap_err();
    assert!(list[0].place.is_none() && list[0].message.starts_with("can't read "), "{list:?}");
    assert_eq!(list[0].hint.as_deref(), Some("`cupbearer init PROVIDER` writes one"));
    fs::write(dir.0.join("proxy.toml"), [b'a', 0xff]).unwrap();
    let problems = load(&dir.0.join("proxy.toml")).unwrap_err().to_string();
    assert!(problems.contains("is not text (UTF-8)"), "{problems}");
}

#[test]
fn a_secret_that_looks_like_something_else_earns_a_warning_without_its_text() {
    let dir = Dir::new("odd");
    for (text, part) in [
        ("CLIENT_SECRET=hunter2", "looks like NAME=value"),
        ("export X=hunter2\n", "looks like NAME=value"),
        ("{\"client_secret\": \"hunter2\"}", "looks like JSON"),
        ("\"hunter2\"", "is in quotes"),
        (" hunter2", "white space"),
        ("hunter2\u{a0}", "white space"),
        ("\u{feff}hunter2", "byte order mark"),
    ] {
        let path = dir.file("odd", text);
        let (_, warnings) = good(&BASE.replace("{ env = \"SECRET\" }", &format!("{{ file = '{}' }}", path.display())));
        assert_eq!(warnings.len(), 1, "{text}");
        assert!(
            warnings[0].contains(part) && warnings[0].contains("/odd") && !warnings[0].contains("hunter2"),
            "{warnings:?}"
        );
    }
    let path = dir.file("odd", "bm90LWEtc2VjcmV0==");
    assert!(good(&BASE.replace("{ env = \"SECRET\" }", &format!("{{ file = '{}' }}", path.display()))).1.is_empty());
}

#[test]
fn a_secret_with_control_characters_or_none_at_all_is_refused() {
    let dir = Dir::new("control");
    for (bytes, part) in [
        (&b"a\nb"[..], "holds control characters"),
        (b"a\0b", "holds control characters"),
        (b"a\rb", "holds control characters"),
        (b"\r\n", "is empty"),
        (b"\xff\xfe", "is not text"),
        (&vec![b'x'; 70_000], "is longer than any secret"),
    ] {
        let path = dir.0.join("secret");
        fs::write(&path, bytes).unwrap();
        let error = SecretSource::File(path).read_blocking().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_command_gives_its_output_and_its_failures_say_why_without_its_arguments() {
    assert_eq!(command(&["printf", "not-a-secret\\n"]).read_blocking().unwrap().expose(), "not-a-secret");
    let failed = command(&["sh", "-c", "echo hunter2 >&2; exit 3"]).read_blocking().unwrap_err();
    assert_eq!(failed.to_string(), "command sh failed: exit status: 3");
    let missing = command(&["/does/not/exist", "hunter2"]).read_blocking().unwrap_err();
    assert!(matches!(missing, SecretError::Command { .. }));
    assert!(!missing.to_string().contains("hunter2"));
}

#[test]
fn a_command_that_floods_is_cut_off() {
    let started = Instant::now();
    let error = command(&["yes"]).read_blocking().unwrap_err();
    assert!(matches!(error, SecretError::TooLong(_)), "{error}");
    assert!(started.elapsed() < crate::config::secret::TIMEOUT);
}

#[test]
fn a_command_is_split_at_spaces_and_not_run_for_a_client_secret() {
    let (config, _) = good(&BASE.replace("{ env = \"SECRET\" }", "{ command = \"/does/not/exist  --field=x\" }"));
    let source = config.credentials[0].client_secret.clone().unwrap();
    assert_eq!(source, command(&["/does/not/exist", "--field=x"]));
    assert_eq!(source.to_string(), "command /does/not/exist");
}

#[test]
fn an_api_key_is_kept_as_its_hash_only() {
    let caller = |key: &str| format!("[callers.a]\napi_key = {key}\n{BASE}");
    let hash = |key: &str| match good(&caller(key)).0.callers[0].identity {
        crate::config::model::CallerIdentity::ApiKey(hash) => hash,
        crate::config::model::CallerIdentity::Cidr(_) => panic!("an API key"),
    };
    // printf %s not-a-secret-key-for-tests | sha256sum
    let written = "6f24c82c66d5063e02a2dcb3bf532b7799ead95d003d112b3e41e4bf5a2d7b3b";
    assert_eq!(hash("{ env = \"KEY\" }"), hash(&format!("{{ sha256 = \"{written}\" }}")));
    assert_eq!(hash("{ env = \"KEY\" }"), hash("{ command = [\"echo\", \"not-a-secret-key-for-tests\"] }"));
}

#[test]
fn the_debug_of_a_configuration_shows_no_secret() {
    let (config, _) = good(&format!("[callers.a]\napi_key = {{ env = \"KEY\" }}\n{BASE}"));
    let debug = format!("{config:?}");
    assert!(!debug.contains("not-a-secret"), "{debug}");
}

#[test]
fn a_list_of_secrets_keeps_its_order_and_systemd_means_a_file_of_its_directory() {
    let dir = Dir::new("systemd");
    dir.file("acme-new", "not-a-secret-new");
    let path = dir.0.display().to_string();
    let text = BASE.replace("{ env = \"SECRET\" }", "[{ systemd = \"acme-new\" }, { env = \"SECRET\" }]");
    let environment = |name: &str| if name == "CREDENTIALS_DIRECTORY" { Some(path.clone()) } else { env(name) };
    let (config, _) = parse(&text, &environment).unwrap_or_else(|p| panic!("{p}"));
    let credential = &config.credentials[0];
    assert_eq!(credential.client_secret, Some(SecretSource::File(dir.0.join("acme-new"))));
    assert!(matches!(credential.more_secrets.as_slice(), [SecretSource::Given { name, .. }] if name == "SECRET"));
}

#[test]
fn whoever_loads_many_routes_is_asked_to_pause_after_each() {
    let dir = Dir::new("pause");
    let route = |n: u32| {
        format!("[[routes]]\nprefix = \"/r{n}\"\nupstream = \"https://api.example/{n}\"\ncredential = \"acme\"\n")
    };
    let text = BASE.replace("{ env = \"SECRET\" }", "{ file = \"acme.secret\" }") + &route(1) + &route(2);
    dir.file("acme.secret", "not-a-secret");
    let pauses = std::cell::Cell::new(0);
    let (config, _) = load_pausing(&dir.file("proxy.toml", &text), &|| pauses.set(pauses.get() + 1))
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.routes.len() > 2, "those of the base, too");
    assert_eq!(pauses.get(), config.routes.len());
}
