//! What is signed for a provider: the nonce it wants and the time by its clock cost one more request at once, and no failure.

use std::time::{Duration, Instant, SystemTime};

use cupbearer::{
    config::model::{Budget, ClientAuth, CredentialSpec},
    token::{
        Engine, Reader, TokenStatus,
        bearer::{Decision, Failure, FailureKind, Now, Unavailable},
    },
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::support::{Provider, Reply, credential, given, log, need, quick};

const REFUSED: &str = r#"{"error":"use_dpop_nonce"}"#;
const BOUND: &str = r#"{"access_token":"t1","token_type":"DPoP","expires_in":3600}"#;
const BEARER: &str = r#"{"access_token":"t1","token_type":"Bearer","expires_in":3600}"#;
const BAD_CLIENT: &str = r#"{"error":"invalid_client"}"#;

/// An answer with these fields.
fn answer(status: u16, body: &str, fields: &[(&'static str, String)]) -> Reply {
    Reply::Answer { status, headers: fields.to_vec(), body: body.to_owned() }
}

fn nonce(value: &str) -> (&'static str, String) {
    ("dpop-nonce", value.to_owned())
}

/// `Date` of a clock that is so many seconds ahead.
fn date(ahead: i64) -> (&'static str, String) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let at = jiff::Timestamp::from_second(now.checked_add_signed(ahead).unwrap().try_into().unwrap()).unwrap();
    ("date", at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn binding(port: u16) -> CredentialSpec {
    CredentialSpec { dpop: true, ..credential(port) }
}

fn signing(port: u16) -> CredentialSpec {
    let key = given(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
    CredentialSpec { client_auth: ClientAuth::PrivateKeyJwt, client_secret: None, key: Some(key), ..credential(port) }
}

struct Asked {
    reader: Reader,
    result: Result<(), Unavailable>,
    status: TokenStatus,
    requests: usize,
    _engine: Engine,
}

impl Asked {
    async fn of(provider: &Provider, spec: CredentialSpec) -> Self {
        log();
        let engine = Engine::with_pace(quick());
        let reader = engine.reader(&need(spec)).unwrap();
        let result = reader.wait(0, Instant::now() + Duration::from_secs(4)).await;
        let status = engine.status().remove(0);
        Self { reader, result, status, requests: provider.count(), _engine: engine }
    }

    fn failure(&self) -> &Failure {
        match &self.result {
            Err(Unavailable::Failed(failure)) => failure,
            other => panic!("{other:?} is no failure"),
        }
    }

    /// Requests, and how many of the fetches succeeded and failed.
    fn counts(&self) -> (usize, u64, u64) {
        (self.requests, self.status.succeeded, self.status.failed)
    }
}

#[tokio::test]
async fn a_nonce_that_is_wanted_costs_a_request_of_the_budget_and_is_no_failure() {
    let provider = Provider::start([answer(400, REFUSED, &[nonce("n1")]), answer(200, BOUND, &[nonce("n2")])]).await;
    let mut spec = binding(provider.port());
    spec.budget = Some(Budget { limit: 5, window: Duration::from_secs(3600) });
    let asked = Asked::of(&provider, spec).await;
    assert!(asked.result.is_ok());
    assert_eq!(asked.counts(), (2, 1, 0));
    assert_eq!(asked.status.budget.map(|budget| budget.used), Some(2));
    assert!(asked.status.last_error.is_none());
    let glance = asked.reader.glance();
    let Decision::Use(bearer) = glance.decide(Now::read()) else { panic!("no token") };
    assert!(bearer.proof.is_some(), "its proofs go with it");
}

#[tokio::test]
async fn a_nonce_that_helps_nothing_is_not_tried_again() {
    for replies in [
        vec![answer(400, REFUSED, &[nonce("n1")]), answer(400, REFUSED, &[nonce("n2")])],
        vec![answer(400, REFUSED, &[nonce("n1")]), answer(401, REFUSED, &[nonce("n1")])],
    ] {
        let provider = Provider::start(replies).await;
        let asked = Asked::of(&provider, binding(provider.port())).await;
        assert_eq!((asked.failure().kind, asked.counts()), (FailureKind::Refused, (2, 0, 1)));
    }
    for fields in [vec![], vec![nonce("with \"quotes\"")]] {
        let provider = Provider::start([answer(400, REFUSED, &fields)]).await;
        let asked = Asked::of(&provider, binding(provider.port())).await;
        assert_eq!((asked.failure().kind, asked.counts()), (FailureKind::Refused, (1, 0, 1)));
        assert!(asked.failure().message.contains("a fault of the provider"), "{}", asked.failure().message);
    }
}

#[tokio::test]
async fn a_nonce_beside_another_refusal_is_kept_and_changes_nothing() {
    let provider = Provider::start([answer(401, BAD_CLIENT, &[nonce("n1")])]).await;
    let asked = Asked::of(&provider, binding(provider.port())).await;
    assert_eq!(asked.counts(), (1, 0, 1));
}

#[tokio::test]
async fn a_provider_that_fails_at_the_second_request_is_down_and_refuses_nobody() {
    let provider = Provider::start([answer(400, REFUSED, &[nonce("n1")]), answer(503, "{}", &[])]).await;
    let asked = Asked::of(&provider, binding(provider.port())).await;
    assert_eq!((asked.failure().kind, asked.counts()), (FailureKind::Unavailable, (2, 0, 1)));
}

#[tokio::test]
async fn a_bearer_token_is_refused_where_a_bound_one_is_wanted_and_only_there() {
    let provider = Provider::start([answer(200, BEARER, &[])]).await;
    let asked = Asked::of(&provider, binding(provider.port())).await;
    let message = &asked.failure().message;
    assert_eq!(asked.failure().kind, FailureKind::Refused);
    assert!(message.contains("is not bound to its key: its token_type is \"Bearer\""), "{message}");
    let provider = Provider::start([answer(200, BOUND, &[])]).await;
    assert!(Asked::of(&provider, credential(provider.port())).await.result.is_ok(), "not asked for, not judged");
}

#[tokio::test]
async fn a_refusal_that_shows_another_time_is_answered_at_once_with_that_time() {
    for (ahead, spec) in [(600, signing as fn(u16) -> CredentialSpec), (-600, signing), (600, binding)] {
        let provider = Provider::start([answer(401, BAD_CLIENT, &[date(ahead)]), answer(200, BOUND, &[])]).await;
        let asked = Asked::of(&provider, spec(provider.port())).await;
        assert!(asked.result.is_ok());
        assert_eq!(asked.counts(), (2, 1, 0));
    }
}

#[tokio::test]
async fn a_refusal_that_has_nothing_to_do_with_time_is_not_repeated() {
    let (right, wrong) = (answer(401, BAD_CLIENT, &[date(0)]), answer(401, BAD_CLIENT, &[date(600)]));
    let provider = Provider::start([right]).await;
    assert_eq!(Asked::of(&provider, signing(provider.port())).await.counts(), (1, 0, 1), "its clock is ours");
    let provider = Provider::start([wrong.clone()]).await;
    assert_eq!(Asked::of(&provider, credential(provider.port())).await.counts(), (1, 0, 1), "nothing is signed");
    let provider = Provider::start([wrong]).await;
    assert_eq!(Asked::of(&provider, signing(provider.port())).await.counts(), (2, 0, 1), "another time was no better");
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_our_own_fault_and_costs_no_request() {
    let provider = Provider::start([answer(200, BOUND, &[])]).await;
    let spec = CredentialSpec { key: Some(given("not-a-key")), ..binding(provider.port()) };
    let asked = Asked::of(&provider, spec).await;
    assert_eq!((asked.failure().kind, asked.requests), (FailureKind::Secret, 0));
    let message = &asked.failure().message;
    assert!(message.contains("key is neither a private key") && !message.contains("not-a-key"), "{message}");
}
