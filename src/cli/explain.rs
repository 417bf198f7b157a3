//! `cupbearer explain METHOD PATH`: what would happen to a request, told by the code that would do it.

use std::{net::Ipv4Addr, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    BAD_CONFIG, DENIED, Format, Global,
    check::{how, identity, origin, shown_prefix, token_url, wants},
    output::{columns, say, tell},
};
use crate::{
    config::{
        self,
        model::{CallerSpec, Config, NetSpec, RouteSpec},
    },
    proxy::{
        Code,
        rehearsal::{Answered, Forwarded, Question, Rehearsal, rehearse},
    },
    rules::policy::{Denial, Reason, Verdict},
    snapshot::Snapshot,
    token::{Key, bearer},
};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The request's method.
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// The path (and query) as a caller would send it, or the whole http:// URL.
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Who calls: the name of a `[callers.NAME]`; without it, a request that nothing identifies.
    #[arg(long, value_name = "NAME")]
    pub(crate) caller: Option<String>,
    #[command(flatten)]
    pub(crate) file: super::FileArgs,
    #[command(flatten)]
    pub(crate) output: super::OutputArgs,
}

/// Prints the explanation: exit 0 for a request that would be forwarded, 4 for one that cupbearer would
/// answer itself, 2 for a bad file or bad usage. No network, no token, no secret is touched.
pub(super) fn run(args: &ExplainArgs, global: &Global) -> ExitCode {
    let (config, _) = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    match explain(args, config) {
        Ok((text, code)) => {
            say(text);
            code
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(BAD_CONFIG)
        }
    }
}

fn explain(args: &ExplainArgs, mut config: Config) -> Result<(String, ExitCode), String> {
    if [&args.method, &args.path].iter().any(|text| text.contains(char::is_control)) {
        return Err("METHOD and PATH hold control characters; write %0A and the like in a path".to_owned());
    }
    if let Some(listen) = config.server.listen.first_mut() {
        // Port 0 and a wildcard are no names that a request could use; localhost on some port is.
        if listen.address.port() == 0 {
            listen.address.set_port(8080);
        }
        if listen.address.ip().is_unspecified() {
            listen.address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
    }
    // The cells stay empty: nobody looks into them before a request is sent.
    let snapshot = Snapshot::compile(config, 1, None, |_| Ok(bearer::cell().1))?;
    let caller = args.caller.as_deref().map(|name| find_caller(&snapshot.config.callers, name)).transpose()?;
    let listen = snapshot.server().listen.first().map_or_else(|| "localhost".to_owned(), |l| l.address.to_string());
    let (host, target) = split_url(&args.path).unwrap_or((&listen, &args.path));
    let question = Question { method: &args.method, target, host, caller, request_id: "<request id>" };
    let rehearsal = rehearse(&snapshot, &question);
    let route = rehearsal.route.map(|at| &snapshot.config.routes[at]);
    let code = if rehearsal.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(DENIED) };
    let telling = Telling { config: &snapshot.config, method: &args.method, target, rehearsal: &rehearsal, route };
    let text = match args.output.format {
        Format::Text => telling.text(),
        Format::Json => format!("{:#}", telling.json()),
    };
    Ok((text, code))
}

fn find_caller<'a>(callers: &'a [CallerSpec], name: &str) -> Result<&'a CallerSpec, String> {
    let names = || callers.iter().map(|c| c.name.as_str());
    callers.iter().find(|c| c.name == name).ok_or_else(|| {
        let hint = config::did_you_mean(name, names()).unwrap_or_else(|| match &names().collect::<Vec<_>>()[..] {
            [] => "the file defines no [callers.NAME]; leave --caller out".to_owned(),
            names => format!("there is {}", names.join(", ")),
        });
        format!("no caller is called `{name}`\n  hint: {hint}")
    })
}

/// `http://HOST/PATH` as it is pasted from a browser or a script: its host goes where curl would put it.
fn split_url(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("http://")?;
    let at = rest.find('/')?;
    Some(rest.split_at(at))
}

/// One explanation, to be written.
struct Telling<'a> {
    config: &'a Config,
    method: &'a str,
    target: &'a str,
    rehearsal: &'a Rehearsal<'a>,
    route: Option<&'a RouteSpec>,
}

impl Telling<'_> {
    fn text(&self) -> String {
        let mut rows = vec![("caller", self.caller())];
        if let Some(route) = self.route {
            rows.insert(0, ("route", format!("{} ({})", shown_prefix(route), self.place())));
        }
        let (verdict, end) = match (&self.rehearsal.outcome, self.route) {
            (Ok(forwarded), Some(route)) => {
                rows.extend(self.forwarded_rows(forwarded, route));
                (self.allowed(forwarded, route), sent(forwarded))
            }
            (Ok(_), None) => (String::new(), String::new()), // nothing is forwarded without a route
            (Err(answered), _) => (denied(answered), self.hint(answered)),
        };
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect();
        format!("{} {}\n{verdict}\n\n{}{end}", self.method, self.target, columns(&rows)).trim_end().to_owned()
    }

    fn place(&self) -> String {
        format!("[[routes]] {} of {}", self.rehearsal.route.unwrap_or_default() + 1, self.config.routes.len())
    }

    fn caller(&self) -> String {
        match self.rehearsal.caller {
            Some(caller) => format!("{} ({})", caller.name, identity(&caller.identity)),
            None if self.config.callers.is_empty() => "anyone: no caller is defined".to_owned(),
            None => "not identified".to_owned(),
        }
    }

    fn forwarded_rows(&self, forwarded: &Forwarded<'_>, route: &RouteSpec) -> Vec<(&'static str, String)> {
        let credential = &route.token.credential;
        let profile = credential.provider.as_ref().map(|p| format!("provider {p}, ")).unwrap_or_default();
        let how = format!("{profile}{}", how(credential));
        let wanted = match wants(&route.token) {
            nothing if nothing.is_empty() => "no scope, no audience".to_owned(),
            wanted => wanted,
        };
        let mut rows = vec![
            ("upstream", url(forwarded, route)),
            ("credential", format!("{} ({how})", credential.name)),
            ("token", format!("{wanted}; from {}{}", origin(credential), self.shared(route))),
            ("timeouts", timeouts(route)),
            ("replay", replay(route)),
        ];
        rows.extend(egress(route).map(|told| ("egress", told)));
        if let Some(max) = route.max_body {
            rows.push(("body", format!("at most {} (max_body)", size(max))));
        }
        rows
    }

    /// Which other routes use the very same token.
    fn sharers(&self, route: &RouteSpec) -> Vec<&str> {
        let key = Key::of(&route.token);
        let others = self.config.routes.iter().filter(|other| other.prefix != route.prefix);
        others.filter(|other| Key::of(&other.token) == key).map(shown_prefix).collect()
    }

    fn shared(&self, route: &RouteSpec) -> String {
        const SHOWN: usize = 4;
        match self.sharers(route) {
            others if others.is_empty() => String::new(),
            others if others.len() > SHOWN => format!("; shared with {} other routes", others.len()),
            others => format!("; shared with {}", others.join(", ")),
        }
    }

    fn allowed(&self, forwarded: &Forwarded<'_>, route: &RouteSpec) -> String {
        let Verdict::Allowed { rule, reported } = forwarded.verdict else { return String::new() };
        if let Some(denial) = reported {
            let code = denial.code().as_str();
            return format!("allowed, but only as mode = \"report\": else {code}, {denial}");
        }
        let by = match rule {
            Some(rule) => format!("by the route's allow rule `{rule}`"),
            None if route.deny.is_empty() => "as the route has no rules".to_owned(),
            None => "as no deny rule of the route covers it".to_owned(),
        };
        let own = self.rehearsal.caller.filter(|caller| !caller.allow.is_empty());
        let own = own.map(|caller| format!(", and by caller `{}`'s own rules", caller.name)).unwrap_or_default();
        format!("allowed {by}{own}")
    }

    fn hint(&self, answered: &Answered<'_>) -> String {
        let names = || self.config.callers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        match answered.denial.map(|denial| denial.reason) {
            Some(Reason::Unidentified) => format!("\nhint: --caller NAME asks for one of {}", names()),
            None if answered.code == Code::NoRoute => {
                let prefixes: Vec<&str> = self.config.routes.iter().map(shown_prefix).collect();
                let near = config::did_you_mean(first_segments(self.target), prefixes.iter().copied());
                let all = || format!("the prefixes are {}", prefixes.join(", "));
                format!("\nhint: {}", near.unwrap_or_else(all))
            }
            _ => String::new(),
        }
    }

    fn json(&self) -> Value {
        let mut answer = json!({
            "method": self.method,
            "path": self.target,
            "allowed": self.rehearsal.outcome.is_ok(),
            "route": self.route.map(shown_prefix),
            "caller": self.rehearsal.caller.map(|caller| &caller.name),
        });
        match (&self.rehearsal.outcome, self.route) {
            (Ok(forwarded), Some(route)) => self.add_forwarded(&mut answer, forwarded, route),
            (Err(answered), _) => {
                answer["answer"] = json!({
                    "status": answered.code.status(),
                    "code": answered.code.as_str(),
                    "blame": answered.code.blame(),
                    "detail": answered.detail,
                });
                answer["rule"] = answered.denial.and_then(|denial| denial.rule()).into();
            }
            (Ok(_), None) => {}
        }
        answer
    }

    fn add_forwarded(&self, answer: &mut Value, forwarded: &Forwarded<'_>, route: &RouteSpec) {
        let Verdict::Allowed { rule, reported } = forwarded.verdict else { return };
        let credential = &route.token.credential;
        answer["rule"] = rule.into();
        answer["would_deny"] = reported.map(|denial: Denial<'_>| denial.to_string()).into();
        answer["upstream"] = json!({
            "url": url(forwarded, route),
            "egress": egress_json(&route.net),
            "headers": forwarded.head.lines().skip(1).filter_map(|l| l.split_once(": ")).collect::<Vec<_>>(),
            "left_out": forwarded.left_out,
        });
        answer["token"] = json!({
            "credential": credential.name,
            "provider": credential.provider,
            "token_url": token_url(credential),
            "issuer": credential.issuer.as_ref().map(|issuer| &issuer.identifier),
            "scopes": route.token.scopes,
            "audience": route.token.audience,
            "resource": route.token.resource,
            "egress": (!credential.grant.is_local()).then(|| egress_json(&credential.net)),
            "key": Key::of(&route.token).to_string(),
            "shared_with": self.sharers(route),
        });
        answer["timeouts_ms"] = json!({
            "connect": millis(route.connect_timeout),
            "response": millis(route.response_timeout),
            "body_idle": millis(route.body_idle_timeout),
        });
        answer["replay"] = json!({ "retry_on": route.retry_on, "replay_buffer": route.replay_buffer });
        answer["max_body"] = route.max_body.into();
    }
}

fn denied(answered: &Answered<'_>) -> String {
    let (status, code, blame) = (answered.code.status(), answered.code.as_str(), answered.code.blame());
    format!("answered by cupbearer: {status} {code} (blame: {blame})\n{}", answered.detail)
}

/// The request line's target on the route's origin: what is really asked for.
fn url(forwarded: &Forwarded<'_>, route: &RouteSpec) -> String {
    let target = forwarded.head.split(' ').nth(1).unwrap_or_default();
    format!("{}://{}{target}", route.upstream.scheme.as_str(), route.upstream.authority)
}

fn sent(forwarded: &Forwarded<'_>) -> String {
    let lines = forwarded.head.trim_end().replace("\r\n", "\n  ");
    format!(
        "\nsent to the upstream, beside the caller's other headers\n  {lines}\n\nleft out wherever a caller sends it\n  {}",
        forwarded.left_out.join(", ")
    )
}

/// How connections leave; `None` where neither the route nor its credential has anything to say about it.
fn egress(route: &RouteSpec) -> Option<String> {
    let (own, tokens) = (route.net.to_string(), route.token.credential.net.to_string());
    if [&own, &tokens].iter().all(|way| **way == NetSpec::default().to_string()) {
        return None;
    }
    Some(match tokens {
        _ if route.token.credential.grant.is_local() => own,
        tokens if own == tokens => format!("{own}; token requests likewise"),
        tokens => format!("{own}; token requests {tokens}"),
    })
}

fn egress_json(net: &NetSpec) -> Value {
    json!({
        "egress_proxy": net.egress_proxy.as_ref().map(ToString::to_string),
        "local_address": net.local_address,
        "ip_family": net.ip_family.as_str(),
        "ca_file": net.ca_file,
    })
}

fn timeouts(route: &RouteSpec) -> String {
    let RouteSpec { connect_timeout, response_timeout, body_idle_timeout, .. } = route;
    format!("connect {connect_timeout:?}, response head {response_timeout:?}, idle body {body_idle_timeout:?}")
}

fn replay(route: &RouteSpec) -> String {
    if route.retry_on.is_empty() {
        return "never: retry_on is empty".to_owned();
    }
    let statuses = route.retry_on.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ");
    let body = match route.replay_buffer {
        0 => "its body is empty".to_owned(),
        most => format!("its body has at most {}", size(most as u64)),
    };
    format!("once, with a new token, after a {statuses} that blames the token, if {body}")
}

fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// As much of a path as a prefix usually has: two segments.
fn first_segments(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    path.match_indices('/').nth(2).map_or(path, |(at, _)| &path[..at])
}
