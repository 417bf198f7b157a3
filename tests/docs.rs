//! The documentation against the binary: what it says must be so.
//!
//! A block after `<!-- config -->` is a whole configuration, one after `<!-- run -->` is run as it stands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use cupbearer::{
    proxy::Code,
    sandbox::{FaultSpec, GRAMMAR, Options, Sandbox},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, by its path from the root.
fn pages() -> Vec<(PathBuf, String)> {
    let markdown = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("readable").map(|e| e.expect("an entry").path());
        entries.filter(|p| p.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    let mut paths = [markdown(root()), markdown(&root().join("docs"))].concat();
    paths.sort();
    assert!(paths.len() > 8, "the documentation was not found");
    paths.into_iter().map(|p| (p.clone(), fs::read_to_string(&p).expect("UTF-8"))).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("readable")
}

/// A fenced block: its language, whether it was marked so, its text.
struct Block<'a> {
    language: &'a str,
    mark: &'a str,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let (mut inside, mut before) = (false, "");
    for line in page.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(language), false) => {
                found.push(Block { language, mark: before, text: String::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => found.last_mut().expect("an open block").text.extend([line, "\n"]),
            (None, false) => {}
        }
        before = line;
    }
    found
}

/// The cells of each row of a page's tables, headings and rulers too.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter_map(|l| Some(l.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect()))
}

fn bare(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// A directory of its own, gone with the value.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cupbearer-docs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.0).env_clear();
        command
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_cupbearer");

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The variables that a configuration names, each with a value that is obviously no secret.
fn variables(config: &str) -> Vec<(String, String)> {
    let between = |mark: &str, end: char| {
        config
            .split(mark)
            .skip(1)
            .map(|rest| rest.split([end, ':']).next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let names = [between("env = \"", '"'), between("${", '}')].concat();
    let value = |name: &str| match name {
        // 32 bytes of `s`, in base64.
        "CUPBEARER_SEAL_KEY" => "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=",
        _ => "not-a-secret-but-long",
    };
    names.into_iter().map(|name| (name.clone(), value(&name).to_owned())).collect()
}

#[test]
fn every_configuration_passes_check() {
    let dir = Dir::new("configurations");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
    dir.write("corp-ca.pem", &certificate.pem());
    dir.write("other.secret", "not-a-secret\n");
    dir.write("vault.secret-id", "not-a-secret\n");
    let mut configurations = vec![("proxy.toml".to_owned(), page("proxy.toml"))];
    for (path, page) in &pages() {
        for block in blocks(page).into_iter().filter(|b| b.language == "toml") {
            block.text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{}: {e}\n{}", path.display(), block.text));
            if block.mark == "<!-- config -->" {
                configurations.push((path.display().to_string(), block.text));
            }
        }
    }
    assert!(configurations.len() > 8, "{}", configurations.len());
    for (place, text) in configurations {
        dir.write("proxy.toml", &text);
        let ran = dir.command(BINARY).arg("check").envs(variables(&text)).output().expect("it runs");
        let told = told(&ran);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{place}: {told}\n{text}");
    }
}

#[test]
fn every_block_that_is_to_be_run_runs() {
    for (path, page) in &pages() {
        let dir = Dir::new(&format!("run-{}", path.file_stem().expect("a name").display()));
        let marked = blocks(page).into_iter().filter(|b| b.mark == "<!-- run -->").map(|b| b.text);
        let script: String = marked.collect();
        let directory = Path::new(BINARY).parent().expect("a directory").display();
        let mut command = dir.command("sh");
        let ran = command.args(["-euc", &script]).env("PATH", format!("{directory}:/usr/bin:/bin")).output();
        let ran = ran.expect("sh runs");
        assert!(ran.status.success(), "{}: {}\n{script}", path.display(), told(&ran));
    }
}

#[test]
fn every_command_line_of_cupbearer_is_good_usage() {
    let mut lines = 0;
    for (path, page) in &pages() {
        let shell = blocks(page).into_iter().filter(|b| b.language == "sh").map(|b| b.text).collect::<String>();
        for line in shell.lines().filter_map(|l| l.strip_prefix("cupbearer ")) {
            // With --help behind them the arguments are judged, and nothing is done.
            let script = format!("'{BINARY}' {line} --help");
            let ran = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
            assert!(ran.status.success(), "{}: {line}: {}", path.display(), told(&ran));
            lines += 1;
        }
    }
    assert!(lines > 8, "{lines}");
}

#[test]
fn every_fault_in_the_documentation_can_be_ordered() {
    let mut faults = 0;
    for (path, page) in &pages() {
        for block in blocks(page).into_iter().filter(|b| b.language == "sh") {
            let words = block.text.split_whitespace().collect::<Vec<_>>();
            let ordered =
                words.windows(2).filter(|w| matches!(w[0], "--fault" | "-d")).map(|w| w[1].trim_matches('\''));
            for fault in ordered {
                fault.parse::<FaultSpec>().unwrap_or_else(|e| panic!("{}: {}", path.display(), e.reason()));
                faults += 1;
            }
        }
    }
    assert!(faults > 3, "{faults}");
}

#[tokio::test]
async fn the_sandbox_is_as_its_page_says() {
    let page = page("docs/sandbox.md");
    assert!(blocks(&page).iter().any(|b| b.text.trim_end() == GRAMMAR), "docs/sandbox.md has another grammar");
    let sandbox = Sandbox::start(Options::default()).await.expect("a port");
    for client in sandbox.clients() {
        let endpoint = sandbox.token_url(client.provider).replace(sandbox.base_url(), "");
        let row = rows(&page).find(|row| row.len() == 5 && bare(row[1]) == endpoint);
        let row = row.unwrap_or_else(|| panic!("docs/sandbox.md lacks {endpoint}"));
        assert!(row[2].contains(&format!("`{}`", client.id)), "{row:?}");
        assert!(row[3].contains(&format!("`{}`", client.secret)), "{row:?}");
    }
}

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let page = page("docs/errors.md");
    let documented: Vec<(String, String, String)> = rows(&page)
        .filter(|row| row.len() == 5 && row[0].starts_with('`'))
        .map(|row| (bare(row[0]).to_owned(), row[1].to_owned(), row[2].to_owned()))
        .collect();
    let real: Vec<(String, String, String)> =
        Code::ALL.iter().map(|c| (c.as_str().to_owned(), c.status().to_string(), c.blame().to_owned())).collect();
    assert_eq!(documented, real);
}

#[test]
fn the_providers_are_as_their_page_says() {
    let page = page("docs/providers.md");
    let listed = Command::new(BINARY).args(["providers", "--format", "json"]).output().expect("it runs");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    for provider in listed.as_array().expect("a list") {
        let name = provider["name"].as_str().expect("a name");
        let apis = provider["apis"].as_array().expect("a list");
        if !page.contains(&format!("\n## {name}\n")) {
            let row = rows(&page).find(|row| bare(row[0]) == name && row.len() == 3);
            let row = row.unwrap_or_else(|| panic!("docs/providers.md lacks {name}"));
            let named = |what: &Value| what["name"].as_str().is_some_and(|n| row[1].contains(&format!("`{n}`")));
            assert!(
                apis.iter().chain(provider["vars"].as_array().expect("a list")).all(named),
                "{row:?}: {provider:#}"
            );
            continue;
        }
        for api in apis.iter().filter(|_| apis.len() > 1) {
            let text = |key: &str| api[key].as_str().unwrap_or_default();
            let row = rows(&page)
                .find(|row| bare(row[0]) == text("name") && row.len() > 1 && bare(row[1]) == text("upstream"));
            let row = row.unwrap_or_else(|| panic!("docs/providers.md lacks {name} {api}"));
            let wanted = api["scopes"][0].as_str().or(api["audience"].as_str());
            assert!(wanted.is_none_or(|wanted| bare(row[2]) == wanted), "{row:?}: {api}");
        }
    }
}

/// As GitHub makes anchors of headings.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_within_the_documentation_leads_somewhere() {
    let mut links = 0;
    for (path, page) in &pages() {
        for rest in page.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a directory").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !wanted.is_empty() {
                let text = fs::read_to_string(&target).expect("a page");
                let mut headings =
                    text.lines().filter(|l| l.starts_with('#')).map(|l| anchor(l.trim_start_matches('#').trim()));
                assert!(headings.any(|h| h == wanted), "{}: {link} has no such heading", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

/// What this schema does not allow in this value; of JSON Schema only what the schema uses.
fn misfits(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/")) {
        return misfits(&root["definitions"][name], root, value, at);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().flat_map(|one| misfits(one, root, value, at)).collect();
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = any.iter().any(|one| misfits(one, root, value, at).is_empty());
        return if fits { vec![] } else { vec![format!("{at}: nothing fits")] };
    }
    let mut wrong = Vec::new();
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        wrong.push(format!("{at}: another word"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"].as_str().is_some_and(|wanted| wanted != kind) {
        wrong.push(format!("{at}: a {kind}"));
        return wrong;
    }
    let (min, max) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
    if value.as_i64().is_some_and(|n| min.is_some_and(|min| n < min) || max.is_some_and(|max| n > max)) {
        wrong.push(format!("{at}: out of bounds"));
    }
    let is_variable = schema["pattern"] == "\\$\\{";
    if is_variable && value.as_str().is_some_and(|text| !text.contains("${")) {
        wrong.push(format!("{at}: no variable"));
    }
    for (position, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(misfits(&schema["items"], root, item, &format!("{at}[{position}]")));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => wrong.push(format!("{at}: unknown")),
            (Value::Null, other) => wrong.extend(misfits(other, root, member, &at)),
            (known, _) => wrong.extend(misfits(known, root, member, &at)),
        }
    }
    wrong
}

fn schema() -> Value {
    let ran = Command::new(BINARY).arg("schema").output().expect("it runs");
    assert!(ran.status.success());
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

fn of_toml(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().expect("TOML")).expect("JSON")
}

#[test]
fn every_configuration_fits_the_schema() {
    let schema = schema();
    let mut fitted = 0;
    let mut texts = vec![page("proxy.toml")];
    for (_, page) in &pages() {
        texts.extend(blocks(page).into_iter().filter(|b| b.mark == "<!-- config -->").map(|b| b.text));
    }
    for text in texts {
        assert_eq!(misfits(&schema, &schema, &of_toml(&text), "file"), Vec::<String>::new(), "{text}");
        fitted += 1;
    }
    assert!(fitted > 8, "{fitted}");
}

#[test]
fn the_schema_refuses_what_check_refuses_and_has_words_for_every_key() {
    let schema = schema();
    for (text, wrong) in [
        ("[sevrer]", "file.sevrer: unknown"),
        ("[server]\nworkers = -1", "file.server.workers: nothing fits"),
        ("[server]\nheader_timeout = 10", "file.server.header_timeout: a integer"),
        ("[credentials.a]\nclient_auth = \"pots\"", "file.credentials.a.client_auth: nothing fits"),
        ("[credentials.a]\nclient_secret = \"plain\"", "file.credentials.a.client_secret: nothing fits"),
        ("[credentials.a]\nscopes = \"read\"", "file.credentials.a.scopes: a string"),
        ("[credentials.a]\nclient_id = { env = \"X\" }", "file.credentials.a.client_id: a object"),
        ("[[routes]]\nprefx = \"/a\"", "file.routes[0].prefx: unknown"),
        ("[tokens]\nstore = { fil = \"x\" }", "file.tokens.store: nothing fits"),
    ] {
        assert_eq!(misfits(&schema, &schema, &of_toml(text), "file"), [wrong], "{text}");
    }
    let mut keys = 0;
    for (section, shape) in schema["properties"].as_object().expect("sections") {
        let table =
            [&shape["items"], &shape["additionalProperties"], shape].into_iter().find(|t| t["properties"].is_object());
        for (key, value) in table.expect("a table")["properties"].as_object().expect("keys") {
            let words = value["description"].as_str().unwrap_or_default();
            assert!(!words.is_empty() && !words.contains("]("), "{section}.{key}: {words:?}");
            keys += 1;
        }
    }
    assert!(keys > 80, "{keys}");
}
