//! Builds the requests in `requests.toml`.

use std::{collections::BTreeMap, fmt::Write as _};

use cupbearer::{
    config::{
        model::{ClientAuth, CredentialSpec, Grant, Param, TokenBody, TokenMethod},
        secret::Secret,
    },
    token::grant::{self, USER_AGENT},
};
use serde::Deserialize;

use crate::support::{credential, given as secret_source, need, read};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    request: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    then: Then,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Given {
    grant_type: Option<String>,
    client_id: Option<String>,
    secret: Option<String>,
    client_auth: Option<String>,
    body: Option<String>,
    scopes: Vec<String>,
    scope_separator: Option<String>,
    audience: Option<String>,
    resource: Vec<String>,
    params: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    id_param: Option<String>,
    secret_param: Option<String>,
    method: Option<String>,
    target: Option<String>,
    templates: BTreeMap<String, String>,
    grant: Option<String>,
    refresh_target: Option<String>,
    refresh: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Then {
    body: Option<String>,
    target: Option<String>,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    absent: Vec<String>,
    error: Option<String>,
}

#[tokio::test]
async fn every_request_is_built_as_the_table_says() {
    let file: File = toml::from_str(include_str!("requests.toml")).expect("legal TOML");
    let mut wrong = String::new();
    for case in file.request {
        let name = case.name.clone();
        if let Err(why) = judge(case).await {
            let _ = writeln!(wrong, "{name}\n    {why}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

async fn judge(case: Case) -> Result<(), String> {
    let refresh = case.given.refresh.clone();
    let spec = need(given(case.given));
    let mut material = read(&spec.credential).await.map_err(|e| e.to_string())?;
    if let Some(refresh) = refresh {
        material = material.with_refresh(Secret::new(refresh));
    }
    let request = match grant::build(&spec, &material) {
        Ok(request) => request,
        Err(error) if case.then.error == Some(error.to_string()) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let body = String::from_utf8_lossy(&request.body);
    if let Some(wanted) = case.then.body.filter(|wanted| *wanted != body) {
        return Err(format!("body is  {body}\n    not      {wanted}"));
    }
    if let Some(wanted) = case.then.target.filter(|wanted| *wanted != *request.target) {
        return Err(format!("target is  {}\n    not        {wanted}", *request.target));
    }
    if case.then.method.is_some_and(|wanted| wanted != request.method.as_str()) {
        return Err(format!("method is {}", request.method));
    }
    for (name, wanted) in &case.then.headers {
        let values: Vec<_> = request.headers.get_all(name).iter().collect();
        if values != [wanted] {
            return Err(format!("{name} is {:?}", values.iter().map(|v| v.to_str()).collect::<Vec<_>>()));
        }
    }
    match case.then.absent.iter().find(|name| request.headers.contains_key(*name)) {
        Some(name) => Err(format!("{name} is there")),
        None => Ok(()),
    }
}

fn given(given: Given) -> CredentialSpec {
    let mut c = credential(1);
    let secret = given.secret.unwrap_or_else(|| "not-a-secret".to_owned());
    c.client_secret = Some(secret_source(&secret));
    c.grant_type = given.grant_type.map_or(c.grant_type, |g| Some(g).filter(|g| !g.is_empty()));
    c.client_id = given.client_id.unwrap_or(c.client_id);
    c.client_auth = match given.client_auth.as_deref() {
        Some("basic") => ClientAuth::Basic,
        Some("basic_raw") => ClientAuth::BasicRaw,
        Some("none") => ClientAuth::None,
        _ => ClientAuth::Post,
    };
    c.body = match given.body.as_deref() {
        Some("json") => TokenBody::Json,
        Some("query") => TokenBody::Query,
        _ => TokenBody::Form,
    };
    match given.grant.as_deref() {
        Some("password") => {
            let (username, password) = ("ann".to_owned(), secret_source("not-a-password"));
            c.grant = Grant::Password { username, password };
        }
        Some("refresh_token") => c.grant = Grant::RefreshToken { first: None },
        _ => {}
    }
    c.refresh_target = given.refresh_target;
    c.method = if given.method.as_deref() == Some("GET") { TokenMethod::Get } else { TokenMethod::Post };
    c.token_target = given.target.unwrap_or(c.token_target);
    (c.scopes, c.audience, c.resource) = (given.scopes, given.audience, given.resource);
    c.scope_separator = given.scope_separator.unwrap_or(c.scope_separator);
    let params = |map: BTreeMap<String, String>| map.into_iter().map(|(n, v)| (n, Param::Plain(v))).collect();
    (c.params, c.headers) = (params(given.params), params(given.headers));
    c.headers.extend(given.templates.into_iter().map(|(n, v)| (n, Param::Template(v))));
    c.id_param = given.id_param.unwrap_or(c.id_param);
    c.secret_param = given.secret_param.unwrap_or(c.secret_param);
    c
}

#[tokio::test]
async fn every_request_says_who_we_are_and_hides_its_credentials_from_debug_output() {
    let mut c = credential(1);
    c.client_auth = ClientAuth::Basic;
    c.headers = vec![("x-key".to_owned(), Param::Secret(secret_source("not-a-key")))];
    let material = read(&c).await.unwrap();
    let request = grant::build(&need(c), &material).unwrap();
    assert_eq!(request.headers["user-agent"], USER_AGENT);
    assert!(USER_AGENT.starts_with("cupbearer/"));
    assert_eq!(request.headers["host"], "127.0.0.1:1");
    assert!(request.headers["authorization"].is_sensitive());
    let shown = format!("{:?} {material:?}", request.headers);
    assert!(!shown.contains("not-a") && !shown.contains("Basic"), "{shown}");
}
