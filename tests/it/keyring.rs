//! Client secrets from the keyring of the session: a real gnome-keyring on a session bus of the test's own.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Cupbearer, Process, Response, TestDir, Upstream, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SECRET: &str = "not-a-secret-of-the-keyring";

/// A session bus with a keyring that an empty password has unlocked.
struct Session {
    dir: TestDir,
    bus: String,
    /// Ends the bus, and with it the keyring.
    _daemon: Process,
}

impl Session {
    fn start() -> Self {
        let dir = TestDir::new();
        dir.write("run/.keep", "");
        let mut command = Command::new("dbus-daemon");
        // The standard session configuration, but nothing is started for who asks: the keyring is ours.
        let config = dir.write(
            "session.conf",
            format!(
                "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
                 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>session</type>\
                 <listen>unix:path={}</listen><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
                 <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
                dir.path().join("bus").display()
            ),
        );
        let daemon = Process::spawn(
            "dbus-daemon",
            command.arg("--nofork").arg("--print-address").arg("--config-file").arg(config),
        );
        let bus = daemon.wait_for_line("unix:").unwrap_or_else(|e| panic!("{e}"));
        Self { dir, bus: format!("unix:{bus}"), _daemon: daemon }
    }

    fn variables(&self) -> [(&'static str, String); 5] {
        let at = |path: &str| self.dir.path().join(path).display().to_string();
        [
            ("HOME", at("home")),
            ("XDG_DATA_HOME", at("home")),
            ("XDG_RUNTIME_DIR", at("run")),
            ("DBUS_SESSION_BUS_ADDRESS", self.bus.clone()),
            ("PATH", "/usr/bin:/bin".to_owned()),
        ]
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) {
        assert!(self.runs(program, arguments, input), "{program} {arguments:?}");
    }

    fn runs(&self, program: &str, arguments: &[&str], input: &str) -> bool {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        child.wait().expect("ours").success()
    }

    /// A keyring for this session, which ends with its bus.
    fn with_keyring(self) -> Self {
        self.run("gnome-keyring-daemon", &["--daemonize", "--unlock", "--components=secrets"], "\n");
        let target = ["--dest=org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.GetNameOwner"];
        let name = "string:org.freedesktop.secrets";
        let arguments = ["--session", "--print-reply", target[0], target[1], target[2], name];
        eventually("the keyring is on the bus", || self.runs("dbus-send", &arguments, ""));
        self
    }

    fn store(&self, account: &str, secret: &str) {
        self.run("secret-tool", &["store", "--label=test", "service", "ipxo", "username", account], secret);
    }

    fn lock(&self) {
        let collection = "array:objpath:/org/freedesktop/secrets/collection/login";
        let target = ["--dest=org.freedesktop.secrets", "--print-reply", "/org/freedesktop/secrets"];
        let arguments =
            ["--session", target[0], target[1], target[2], "org.freedesktop.Secret.Service.Lock", collection];
        self.run("dbus-send", &arguments, "");
    }
}

/// What a request gets, with the secret of `keyring`, and the log.
fn ask(session: &Session, keyring: &str) -> (Response, String) {
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
    let builder =
        session.variables().iter().fold(Cupbearer::builder(), |builder, (name, value)| builder.env(name, value));
    let proxy = builder.start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ keyring = \"{keyring}\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    let response = proxy.get("/api");
    if response.status == 200 {
        let body = String::from_utf8(tokens.requests()[0].body.clone()).expect("a form");
        assert!(body.contains(&format!("client_secret={SECRET}")), "the secret of the keyring");
    }
    proxy.expect_never_printed(&["not-a-secret"]);
    (response, proxy.stop())
}

fn expect_unavailable((response, log): &(Response, String), part: &str) {
    let body: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
    assert_eq!((response.status, &body["code"], &body["blame"]), (503, &"secret_unavailable".into(), &"config".into()));
    let detail = body["detail"].as_str().expect("a text");
    assert!(detail.contains("one of its secrets cannot be had") && !detail.contains("keyring"), "{detail}");
    assert!(log.contains(part), "{part}: {log}");
}

#[test]
#[ignore = "needs gnome-keyring, libsecret-tools and dbus: run tests/run"]
fn a_secret_is_read_from_the_keyring_and_what_is_missing_or_locked_is_said() {
    let session = Session::start().with_keyring();
    session.store("billing", SECRET);
    assert_eq!(ask(&session, "ipxo/billing").0.status, 200);
    expect_unavailable(&ask(&session, "ipxo/nobody"), "keyring ipxo/nobody: it is not there");
    session.lock();
    expect_unavailable(&ask(&session, "ipxo/billing"), "keyring ipxo/billing: it is locked");
}

#[test]
#[ignore = "needs gnome-keyring, libsecret-tools and dbus: run tests/run"]
fn without_a_keyring_or_a_bus_it_is_said_what_is_missing() {
    let session = Session::start();
    expect_unavailable(&ask(&session, "ipxo/billing"), "keyring ipxo/billing: there is no keyring to ask");
    let gone = Session { bus: "unix:path=/does/not/exist".to_owned(), ..session };
    expect_unavailable(&ask(&gone, "ipxo/billing"), "keyring ipxo/billing: there is no keyring to ask");
}

#[test]
fn without_the_tool_it_is_said_which_package_has_it() {
    let (tokens, api) = (Upstream::tokens(3600), Upstream::always(OK));
    let proxy = Cupbearer::builder().env("PATH", Path::new("/does/not/exist").to_str().expect("text")).start(&format!(
        "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ keyring = \"a/b\" }}\ntoken_url = \"{}/token\"\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"{}\"\ncredential = \"c\"\n",
        tokens.url(),
        api.url()
    ));
    let response = proxy.get("/api");
    expect_unavailable(&(response, proxy.stop()), "secret-tool is not installed (package libsecret-tools)");
}
