//! A strict judge of `DPoP` proofs (RFC 9449 sections 4.3, 7 and 8), an identity provider and an API that ask it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{
    Request, Upstream,
    h2::{Act, H2Upstream, response},
};

/// How far `iat` may be from the judge's clock.
const WINDOW: u64 = 20;

/// What a server that wants proofs wants, and what it has seen. Provider and API each have one of their own.
#[derive(Clone, Default)]
pub(crate) struct Judge(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// The nonce that a proof must have now.
    nonce: Option<String>,
    /// Each answer gives a new one, and none is good.
    fickle: bool,
    /// Each answer gives a new one, which is good once: those that were not used yet.
    single: Option<HashSet<String>>,
    /// How far its clock is ahead of the real one.
    skew: i64,
    seen: HashSet<String>,
    /// Every `error` that was answered.
    refusals: Vec<String>,
    accepted: usize,
    count: usize,
}

/// Which tokens are good, and the thumbprint of the key that each is bound to.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<String, String>>>);

impl Tokens {
    /// Voids all tokens issued so far.
    pub(crate) fn revoke(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Makes `token` a good one, bound to the key with this thumbprint.
    pub(crate) fn issue(&self, token: &str, key: &str) {
        self.0.lock().unwrap().insert(token.to_owned(), key.to_owned());
    }

    /// The keys that good tokens are bound to.
    pub(crate) fn keys(&self) -> HashSet<String> {
        self.0.lock().unwrap().values().cloned().collect()
    }
}

impl Judge {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap()
    }

    /// From now on proofs need this nonce.
    pub(crate) fn want_nonce(&self, nonce: &str) {
        self.lock().nonce = Some(nonce.to_owned());
    }

    /// From now on no nonce is good enough.
    pub(crate) fn want_ever_other_nonces(&self) {
        self.lock().fickle = true;
    }

    /// From now on each answer gives a nonce that is good for one proof.
    pub(crate) fn want_each_nonce_once(&self) {
        self.lock().single = Some(HashSet::new());
    }

    /// Its clock is so many seconds ahead.
    pub(crate) fn set_clock(&self, skew: i64) {
        self.lock().skew = skew;
    }

    /// Every `error` that was answered so far.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.lock().refusals.clone()
    }

    /// How many proofs were good.
    pub(crate) fn accepted(&self) -> usize {
        self.lock().accepted
    }

    /// `DPoP-Nonce` and `Date` of an answer.
    pub(crate) fn fields(&self) -> String {
        let mut known = self.lock();
        known.count += 1;
        let next = format!("nonce-{}", known.count);
        if known.fickle {
            known.nonce = Some(next.clone());
        }
        let single = known.single.as_mut().map(|unused| {
            unused.insert(next.clone());
            next
        });
        let nonce = single
            .as_ref()
            .or(known.nonce.as_ref())
            .map(|nonce| format!("DPoP-Nonce: {nonce}\r\n"))
            .unwrap_or_default();
        format!("{nonce}Date: {}\r\n", http_date(known.clock()))
    }

    /// The thumbprint of the key that signed a good proof, else the `error` to answer.
    pub(crate) fn proof(&self, request: &Request, token: Option<&str>) -> Result<String, &'static str> {
        let mut known = self.lock();
        let judged = known.judge(request, token);
        match &judged {
            Ok(_) => known.accepted += 1,
            Err((error, why)) => known.refusals.push(format!("{error}: {why}")),
        }
        judged.map_err(|(error, _)| error)
    }
}

type Refused = (&'static str, &'static str);

impl Known {
    fn clock(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        now.checked_add_signed(self.skew).unwrap()
    }

    fn judge(&mut self, request: &Request, token: Option<&str>) -> Result<String, Refused> {
        let bad = |why: &'static str| ("invalid_dpop_proof", why);
        let fields: Vec<&str> = request.all("dpop").collect();
        let [proof] = fields[..] else { return Err(bad("not exactly one DPoP field")) };
        let parts: Vec<&str> = proof.split('.').collect();
        let [head, payload, signature] = parts[..] else { return Err(bad("no compact JWT")) };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| bad("no base64url"));
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| bad("no JSON"));
        let (head, claims) = (json(head)?, json(payload)?);
        if head["typ"] != "dpop+jwt" {
            return Err(bad("typ"));
        }
        if ["d", "p", "q", "k"].iter().any(|member| head["jwk"].get(member).is_some()) {
            return Err(bad("the jwk is private"));
        }
        let signed = proof.rsplit_once('.').unwrap().0.as_bytes();
        verify(&head, signed, &decode(signature)?).ok_or(bad("signature"))?;
        let mut line = request.line().split(' ');
        let (method, target) = (line.next().unwrap(), line.next().unwrap());
        let path = target.split('?').next().unwrap();
        if claims["htm"] != method {
            return Err(bad("htm"));
        }
        if claims["htu"] != format!("http://{}{path}", request.header("host").unwrap()) {
            return Err(bad("htu"));
        }
        if claims["ath"] != token.map_or(Value::Null, |token| coded(token.as_bytes()).into()) {
            return Err(bad("ath"));
        }
        let wrong = self.nonce.as_ref().is_some_and(|nonce| claims["nonce"] != nonce.as_str());
        let used_up = self.single.as_mut().is_some_and(|unused| !unused.remove(claims["nonce"].as_str().unwrap_or("")));
        if wrong || used_up || self.fickle {
            return Err(("use_dpop_nonce", "nonce"));
        }
        if claims["iat"].as_u64().is_none_or(|iat| iat.abs_diff(self.clock()) > WINDOW) {
            return Err(bad("iat"));
        }
        let id = claims["jti"].as_str().filter(|id| id.len() >= 16).ok_or(bad("jti"))?;
        if !self.seen.insert(id.to_owned()) {
            return Err(bad("replayed"));
        }
        Ok(thumbprint(&head["jwk"]))
    }
}

fn coded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

/// RFC 7638.
fn thumbprint(jwk: &Value) -> String {
    let members: &[&str] = match jwk["kty"].as_str() {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("RSA") => &["e", "kty", "n"],
        _ => &["crv", "kty", "x"],
    };
    let text: Vec<String> = members.iter().map(|name| format!("\"{name}\":{}", jwk[*name])).collect();
    coded(format!("{{{}}}", text.join(",")).as_bytes())
}

fn verify(head: &Value, signed: &[u8], signature: &[u8]) -> Option<()> {
    let member = |name: &str| URL_SAFE_NO_PAD.decode(head["jwk"][name].as_str()?).ok();
    let point = || Some([vec![4], member("x")?, member("y")?].concat());
    match head["alg"].as_str()? {
        "ES256" => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point()?).verify(signed, signature).ok(),
        "ES384" => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point()?).verify(signed, signature).ok(),
        "EdDSA" => UnparsedPublicKey::new(&ED25519, member("x")?).verify(signed, signature).ok(),
        alg @ ("RS256" | "PS256") => {
            let key = RsaPublicKeyComponents { n: member("n")?, e: member("e")? };
            let by = if alg == "RS256" { &RSA_PKCS1_2048_8192_SHA256 } else { &RSA_PSS_2048_8192_SHA256 };
            key.verify(by, signed, signature).ok()
        }
        _ => None,
    }
}

/// RFC 9110 section 5.6.7.
pub(crate) fn http_date(seconds: u64) -> String {
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A token endpoint that binds `not-a-token-1`, `not-a-token-2`… to the key of the proof, and says that they are of `token_type`.
pub(crate) fn binding_provider(judge: &Judge, tokens: &Tokens, token_type: &str, lifetime: u64) -> Upstream {
    let (judge, tokens, token_type) = (judge.clone(), tokens.clone(), token_type.to_owned());
    let issued = std::sync::atomic::AtomicUsize::new(0);
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let judged = judge.proof(&request, None);
            let fields = judge.fields();
            let (status, body) = match judged {
                Ok(key) => {
                    let number = issued.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                    let token = format!("not-a-token-{number}");
                    tokens.issue(&token, &key);
                    let body = serde_json::json!({
                        "access_token": token, "token_type": token_type, "expires_in": lifetime,
                    });
                    ("200 OK", body)
                }
                Err(error) => ("400 Bad Request", serde_json::json!({ "error": error })),
            };
            let body = body.to_string();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    })
}

/// Whether a request has a good token and a proof by the key that it is bound to; else the `error` to answer.
fn judged(judge: &Judge, tokens: &Tokens, request: &Request) -> Result<(), &'static str> {
    let fields: Vec<&str> = request.all("authorization").collect();
    let token = match fields[..] {
        [field] => field.strip_prefix("DPoP ").unwrap_or_default(),
        _ => "",
    };
    let key = tokens.0.lock().unwrap().get(token).cloned();
    match (key, judge.proof(request, Some(token))) {
        (Some(key), Ok(proof)) if key == proof => Ok(()),
        (_, Ok(_)) => Err("invalid_token"),
        (_, Err(error)) => Err(error),
    }
}

/// The same as [`bound_api`] over HTTP/2, without TLS.
pub(crate) fn bound_api_over_h2(judge: &Judge, tokens: &Tokens) -> H2Upstream {
    let (judge, tokens) = (judge.clone(), tokens.clone());
    H2Upstream::start(move |message| {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", message.method, message.path, message.authority);
        for (name, value) in &message.headers {
            head.extend([name.as_str(), ": ", value.to_str().expect("text"), "\r\n"]);
        }
        let request = Request { connection: message.connection, head: head + "\r\n", body: message.body.clone() };
        let judged = judged(&judge, &tokens, &request);
        let fields = judge.fields();
        let mut headers: Vec<_> = fields.lines().filter_map(|line| line.split_once(": ")).collect();
        let challenge = format!("DPoP error=\"{}\", algs=\"ES256\"", judged.err().unwrap_or_default());
        if judged.is_err() {
            headers.push(("WWW-Authenticate", &challenge));
        }
        let (status, body) = if judged.is_ok() { (200, "ok") } else { (401, "no") };
        Act::Answer(response(status, &headers, body))
    })
}

/// An API that takes good tokens by the scheme `DPoP` with a proof by the key that each is bound to. It judges a request by its
/// head, before the body is there.
pub(crate) fn bound_api(judge: &Judge, tokens: &Tokens) -> Upstream {
    let (judge, tokens) = (judge.clone(), tokens.clone());
    Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let judged = judged(&judge, &tokens, &request);
            let fields = judge.fields();
            match judged {
                Ok(()) => connection.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok")),
                Err(error) => connection.send(format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: DPoP error=\"{error}\", algs=\"ES256\"\r\n\
                     {fields}Content-Length: 2\r\n\r\nno"
                )),
            }
        }
    })
}
