//! Where secrets come from.

use super::*;

#[test]
fn a_plain_secret_that_names_a_variable_gets_that_variable_in_its_hint() {
    let found = bad(r#"[credentials.acme]
provider = "ipxo"
client_id = "a"
client_secret = "${ACME}"
"#);
    let expected = [
        r#"4:17 `client_secret` in [credentials.acme] is a plain value: secrets don't belong in this file (say where the secret is: client_secret = { env = "ACME" }, { file = "…" } or { command = ["…"] })"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn each_way_to_miss_a_secret_has_its_own_words() {
    let found = bad(r#"[credentials.a]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { keyring = "x" }
[credentials.b]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { envv = "SECRET" }
[credentials.c]
client_id = "a"
token_url = "https://e.com/t"
client_secret = {}
[credentials.d]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "MISSING_ONE" }
[credentials.e]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { file = "/does/not/exist" }
[credentials.f]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "EMPTY" }
[credentials.g]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { command = [] }
[credentials.h]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "$SECRET" }
[credentials.i]
client_id = "a"
token_url = "https://e.com/t"
client_secret = { env = "pasted" }
[credentials.j]
client_id = "a"
token_url = "https://e.com/t"
"#);
    let expected = [
        "4:29 `keyring` of `client_secret` must be SERVICE/ACCOUNT (as in: secret-tool store --label=… service SERVICE username ACCOUNT)",
        "8:19 unknown key `envv` in `client_secret` (did you mean `env`?)",
        "12:17 `client_secret` in [credentials.c] needs exactly one source (one of env, file, command, keyring, systemd, vault)",
        "16:17 `client_secret` in [credentials.d]: environment variable MISSING_ONE is not set (set it in the environment of cupbearer)",
        "20:17 `client_secret` in [credentials.e]: file /does/not/exist can't be read: No such file or directory (os error 2)",
        "24:17 `client_secret` in [credentials.f]: environment variable EMPTY is empty",
        "28:29 `command` of `client_secret` must be a program and its arguments (a list of strings, or one string that is split at spaces; no shell)",
        r#"32:25 `env` of `client_secret` must be the name of an environment variable (the name alone, without `$`: { env = "NAME" })"#,
        "36:17 `client_secret` in [credentials.i]: the environment variable named here is not set (set it in the environment of cupbearer)",
        r#"37:14 [credentials.j] has no `client_secret` (client_secret = { env = "NAME" }, { file = "…" } or { command = ["…"] })"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn no_secret_is_sent_and_one_is_given() {
    let found = bad(r#"[credentials.a]
client_id = "a"
token_url = "https://e.com/t"
client_auth = "none"
client_secret = { env = "SECRET" }
"#);
    let expected = [r#"5:1 [credentials.a] has a `client_secret`, but client_auth = "none" sends none"#];
    assert_eq!(found, expected);
}

#[test]
fn a_list_of_secrets_is_for_client_secret_alone_and_none_of_it_may_be_wrong() {
    let list = |text: &str| bad(&BASE.replace("{ env = \"SECRET\" }", text));
    assert_eq!(list("[]"), ["5:17 `client_secret` in [credentials.acme] is an empty list"]);
    assert_eq!(
        list("[{ env = \"SECRET\" }, { env = \"MISSING_ONE\" }]"),
        ["5:38 `client_secret` in [credentials.acme]: environment variable MISSING_ONE is not set (set it in the \
          environment of cupbearer)"]
    );
    let plain = list("[\"hunter2\"]");
    assert!(plain.len() == 1 && plain[0].contains("secrets don't belong in this file"), "{plain:?}");
    assert!(!plain[0].contains("hunter2"));
    let param = bad(&BASE.replace("provider", "params = { pin = { env = [\"A\"] } }\nprovider"));
    assert_eq!(param.len(), 1, "{param:?}");
}

#[test]
fn a_systemd_credential_is_a_name_within_the_services_own_directory() {
    let systemd = |text: &str| bad(&BASE.replace("env = \"SECRET\"", text));
    assert_eq!(
        systemd("systemd = \"acme\""),
        ["5:29 `systemd` of `client_secret`: CREDENTIALS_DIRECTORY is not set (systemd sets it for a service with \
          LoadCredential= or LoadCredentialEncrypted=)"]
    );
    assert_eq!(
        systemd("systemd = \"../acme\""),
        ["5:29 `systemd` of `client_secret` must be the name of a credential, not a path"]
    );
}

#[test]
fn a_secret_in_vault_needs_a_place_a_server_and_a_login() {
    let with = |source: &str, section: &str| {
        bad(&format!("{}{section}", BASE.replace("{ env = \"SECRET\" }", source)))
            .into_iter()
            .map(|line| line.split_once(' ').map_or_else(String::new, |(_, text)| text.to_owned()))
            .collect::<Vec<_>>()
    };
    let vault = "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\n";
    let hint = "(\"MOUNT/PATH#FIELD\", or { vault = \"MOUNT/PATH\", field = \"FIELD\" })";
    for (source, part) in [
        ("{ vault = \"secret/ipxo\" }", "names no field"),
        ("{ vault = \"secret/ipxo#a\", field = \"b\" }", "names its field twice"),
        ("{ vault = \"ipxo#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/../sys#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/a%2fb#a\" }", "is no path of a secret"),
        ("{ vault = \"secret/ipxo?version=1#a\" }", "is no path of a secret"),
    ] {
        assert_eq!(with(source, vault), [format!("`vault` of `client_secret` {part} {hint}")], "{source}");
    }
    let good = "{ vault = \"secret/ipxo#client_secret\" }";
    let no_server = "this secret comes from Vault, but there is no address of it ([vault] address = \"https://…:8200\", or \
                     VAULT_ADDR in the environment)";
    assert_eq!(with(good, ""), [no_server]);
    for (section, part) in [
        ("[vault]\ntoken = { env = \"SECRET\" }\n", "[vault] has no `address`"),
        ("[vault]\naddress = \"https://vault.example\"\n", "there is nothing to log in to Vault with"),
        (
            "[vault]\naddress = \"http://vault.example\"\ntoken = { env = \"SECRET\" }\n",
            "would send secrets over plain http",
        ),
        ("[vault]\naddress = \"https://vault.example\"\ntoken = \"hvs.x\"\n", "secrets don't belong in this file"),
        (
            "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\nrole_id = \"a\"\n",
            "has a `token` and a `role_id`",
        ),
        (
            "[vault]\naddress = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\nsecret_id = { env = \"SECRET\" }\n",
            "`secret_id` in [vault] goes with `role_id`",
        ),
        ("[vault]\naddress = \"https://vault.example\"\ntoken = { vault = \"a/b#c\" }\n", "cannot come from `vault`"),
        ("[vault]\naddres = \"https://vault.example\"\ntoken = { env = \"SECRET\" }\n", "unknown key `addres`"),
    ] {
        let found = with(good, section);
        assert!(found.iter().any(|line| line.contains(part)), "{section}: {found:?}");
    }
    let found = bad(&format!("[tokens]\nstore = {{ file = \"x\" }}\nseal_key = {good}\n{vault}{BASE}"));
    assert!(found.len() == 1 && found[0].contains("`seal_key` in [tokens] cannot come from `vault`"), "{found:?}");
}
