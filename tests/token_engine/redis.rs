//! Several replicas and a real `redis-server`, which each test starts on a port of its own.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cupbearer::{
    config::{
        model::{Alg, ClientAuth, CredentialSpec, RedisSpec, Scheme, StoreSpec, TokenSpec},
        secret::Secret,
    },
    token::{
        Engine, Key, Reader, Store,
        bearer::{Decision, Now, Rejection},
        reply::fingerprint,
        rotation::{Kept, LOGIN, Rotation},
        share::Claim,
        store::Seal,
    },
};

use crate::support::{Provider, Reply, credential, given, log, minted, need, read, token_json};

const PASSWORD: &str = "not-a-secret-for-redis";

/// Ends with the test, whatever becomes of it.
struct Server {
    address: SocketAddr,
    directory: PathBuf,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        Self::start_at(free)
    }

    fn start_at(address: SocketAddr) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}", address.port()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--requirepass", PASSWORD]).arg("--dir").arg(&directory);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server runs");
        let server = Self { address, directory, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// A replica of its own.
    fn store(&self) -> Store {
        let spec = RedisSpec {
            scheme: Scheme::Http,
            net: Arc::default(),
            host: self.address.ip().to_string(),
            port: self.address.port(),
            database: 1,
            username: None,
            password: Some(given(PASSWORD)),
        };
        let seal = Seal::new(&Secret::new(STANDARD.encode([7; 32]))).expect("a key");
        Store::open(&StoreSpec::Redis(spec), Some(seal)).expect("a store")
    }

    fn replica(&self) -> Engine {
        Engine::with_store(self.store())
    }

    /// Everything that is in it, as one text.
    async fn content(&self) -> String {
        let url = format!("redis://:{PASSWORD}@{}/1", self.address);
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
        let mut text = String::new();
        for key in keys {
            let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.expect("a value");
            let _ = writeln!(text, "{key} = {}", String::from_utf8_lossy(&dump));
        }
        text
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
    }

    /// Kills it; its port is free afterwards.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What every replica of this test needs: equal for all of them, and for no other test.
fn spec(port: u16) -> CredentialSpec {
    let mut spec = credential(port);
    spec.timeout = Duration::from_secs(2);
    spec
}

fn carried(reader: &Reader) -> Option<(String, u64)> {
    match reader.glance().decide(Now::read()) {
        Decision::Use(b) | Decision::WaitOr(b) => Some((b.token.expose().to_owned(), b.generation)),
        Decision::Wait | Decision::Fail(_) => None,
    }
}

async fn token(reader: &Reader, above: u64) -> String {
    reader.wait(above, Instant::now() + Duration::from_secs(30)).await.expect("a token");
    carried(reader).expect("a token after waiting").0
}

fn readers(replicas: &[Engine], need: &Arc<TokenSpec>) -> Vec<Reader> {
    replicas.iter().map(|engine| engine.reader(need).expect("a reader")).collect()
}

/// What all replicas get when all ask at once.
async fn all(readers: &[Reader], above: u64) -> Vec<String> {
    let mut asking = tokio::task::JoinSet::new();
    for reader in readers {
        let reader = reader.clone();
        asking.spawn(async move { token(&reader, above).await });
    }
    asking.join_all().await
}

async fn reject(readers: &[Reader], generation: u64) {
    for reader in readers {
        while reader.reject(generation, Instant::now()) == Rejection::TooFresh {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn three_replicas_cost_one_token_request_per_renewal_and_redis_holds_nothing_readable() {
    log();
    let server = Server::start();
    let provider = Provider::start([Reply::token("not-a-token-1", 3600), Reply::token("not-a-token-2", 3600)]).await;
    let replicas: Vec<Engine> = (0..3).map(|_| server.replica()).collect();
    let readers = readers(&replicas, &need(spec(provider.port())));
    assert_eq!(all(&readers, 0).await, ["not-a-token-1"; 3]);
    assert_eq!(provider.count(), 1);
    reject(&readers, 1).await;
    assert_eq!(all(&readers, 1).await, ["not-a-token-2"; 3]);
    assert_eq!(provider.count(), 2, "the rejected token was removed, and only that one");
    let late = server.replica();
    assert_eq!(token(&late.reader(&need(spec(provider.port()))).unwrap(), 0).await, "not-a-token-2");
    assert_eq!(provider.count(), 2, "a new replica finds the token");
    let content = server.content().await;
    assert!(content.contains("cupbearer:token:") && !content.contains("not-a-token"), "{content}");
    assert!(late.status()[0].was_tried(), "and is ready with it");
    let fetches: u64 = replicas.iter().map(|engine| engine.status()[0].succeeded).sum();
    assert_eq!(fetches, 2);
    assert!(!log().contains(PASSWORD), "the password was logged");
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn without_redis_every_replica_fetches_for_itself_and_when_it_is_back_they_share_again() {
    log();
    let mut server = Server::start();
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let replicas: Vec<Engine> = (0..3).map(|_| server.replica()).collect();
    let readers = readers(&replicas, &need(spec(provider.port())));
    assert_eq!(all(&readers, 0).await, ["t1"; 3]);
    server.kill();
    provider.turn_to([Reply::token("t2", 3600)]);
    reject(&readers, 1).await;
    assert_eq!(all(&readers, 1).await, ["t2"; 3]);
    assert_eq!(provider.count(), 4, "one, and one for each without Redis");
    let said =
        |text: &str| log().lines().filter(|l| l.contains(&server.address.to_string()) && l.contains(text)).count();
    assert_eq!(said("redis is away"), 3, "each says it once");
    let back = Server::start_at(server.address);
    tokio::time::sleep(Duration::from_millis(1100)).await; // the pause after a failure
    provider.turn_to([Reply::token("t3", 3600)]);
    reject(&readers, 2).await;
    assert_eq!(all(&readers, 2).await, ["t3"; 3]);
    assert_eq!(provider.count(), 5);
    assert_eq!(said("redis is back"), 3);
    drop(back);
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn a_redis_that_hangs_delays_nobody_for_long() {
    let server = Server::start();
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let replicas: Vec<Engine> = (0..2).map(|_| server.replica()).collect();
    let readers = readers(&replicas, &need(spec(provider.port())));
    server.signal("-STOP");
    let began = Instant::now();
    assert_eq!(all(&readers, 0).await, ["t1"; 2]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(provider.count(), 2);
    server.signal("-CONT");
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn when_the_holder_of_the_lease_dies_another_waits_as_long_as_a_request_may_take() {
    let server = Server::start();
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let mut signed = spec(provider.port());
    // Where a token request may take several calls.
    (signed.client_auth, signed.alg) = (ClientAuth::ClientSecretJwt, Some(Alg::Hs256));
    signed.timeout = Duration::from_secs(1);
    let need = need(signed);
    let Store::Redis(redis) = server.store() else { panic!("a redis") };
    let lease = redis.lease(Key::of(&need), Duration::from_secs(60), None).await.unwrap();
    assert!(matches!(lease, Claim::Ours(_)));
    std::mem::forget(lease); // as if by kill -9
    let other = server.replica();
    let reader = other.reader(&need).unwrap();
    let began = Instant::now();
    assert_eq!(token(&reader, 0).await, "t1");
    assert!(began.elapsed() > Duration::from_millis(900), "not before a request would have failed");
    assert!(began.elapsed() < Duration::from_secs(2), "callers wait for one second more: {:?}", began.elapsed());
    assert_eq!(provider.count(), 1);
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn a_replica_that_ends_in_the_middle_of_a_fetch_leaves_nobody_waiting() {
    let server = Server::start();
    for is_told in [true, false] {
        let gated = Reply::Gated(token_json("t1", 3600));
        let provider = Provider::start([gated, Reply::token("t2", 3600)]).await;
        let need = need(spec(provider.port()));
        let (holder, other) = (server.replica(), server.replica());
        let (first, second) = (holder.reader(&need).unwrap(), other.reader(&need).unwrap());
        tokio::spawn(async move { first.wait(0, Instant::now() + Duration::from_secs(30)).await.is_ok() });
        while provider.count() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if is_told {
            holder.stop().await;
        } else {
            drop(holder);
        }
        let began = Instant::now();
        assert_eq!(token(&second, 0).await, "t2");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn a_credential_that_is_not_to_be_shared_never_goes_to_redis() {
    let server = Server::start();
    let provider = Provider::start([Reply::token("t1", 3600)]).await;
    let mut bound = spec(provider.port());
    bound.share = false;
    let replicas: Vec<Engine> = (0..2).map(|_| server.replica()).collect();
    assert_eq!(all(&readers(&replicas, &need(bound)), 0).await, ["t1"; 2]);
    assert_eq!(provider.count(), 2);
    assert_eq!(server.content().await, "");
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn an_older_token_never_displaces_a_newer_one_and_only_the_rejected_one_is_removed() {
    let server = Server::start();
    let Store::Redis(redis) = server.store() else { panic!("a redis") };
    let need = need(spec(1));
    let (key, version) = (Key::of(&need), read(&need.credential).await.unwrap().version());
    let now = Now::read();
    let aged = |text: &str, age: u64| {
        let issued = Now { wall: now.wall - Duration::from_secs(age), ..now };
        minted(text, issued, Duration::from_secs(3600))
    };
    let held = async || {
        let found = redis.load(key, version, SystemTime::now()).await.expect("an answer");
        found.map(|minted| minted.token.expose().to_owned())
    };
    redis.save(key, version, &aged("newer", 10)).await.unwrap();
    redis.save(key, version, &aged("older", 20)).await.unwrap();
    assert_eq!(held().await.as_deref(), Some("newer"));
    redis.forget(key, &fingerprint("older")).await.unwrap();
    assert_eq!(held().await.as_deref(), Some("newer"));
    let claim = async |seconds| redis.lease(key, Duration::from_secs_f64(seconds), None).await.unwrap();
    let Claim::Ours(lease) = claim(0.1).await else { panic!("free") };
    assert!(matches!(claim(60.0).await, Claim::Theirs(_)), "taken");
    tokio::time::sleep(Duration::from_millis(150)).await;
    let Claim::Ours(next) = claim(60.0).await else { panic!("passed") };
    redis.release(lease).await;
    assert!(matches!(claim(60.0).await, Claim::Theirs(_)), "a late holder gives nothing back");
    redis.release(next).await;
    assert!(matches!(claim(60.0).await, Claim::Ours(_)));
    redis.forget(key, &fingerprint("newer")).await.unwrap();
    assert_eq!(held().await, None);
}

#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn a_token_ends_by_the_clock_of_redis_wherever_the_issuers_clock_is() {
    let server = Server::start();
    let Store::Redis(redis) = server.store() else { panic!("a redis") };
    let need = need(spec(1));
    let (key, version) = (Key::of(&need), read(&need.credential).await.unwrap().version());
    let now = Now::read();
    let issued = Now { wall: now.wall + Duration::from_secs(50), ..now };
    let minted = minted("ahead", issued, Duration::from_secs(3));
    redis.save(key, version, &minted).await.unwrap();
    let left = async || {
        let found = redis.load(key, version, SystemTime::now()).await.expect("an answer")?;
        Some(found.life.saturating_sub(found.issued.mono.elapsed()))
    };
    assert!(left().await.is_some_and(|left| left <= minted.life));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(left().await.is_some_and(|left| left <= Duration::from_secs(2)));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(left().await, None, "about to end");
}

/// Who was suspended for longer than its lease finds that the world has gone on.
#[tokio::test]
#[ignore = "needs redis-server: run tests/run"]
async fn a_late_holder_of_a_refresh_token_neither_removes_nor_replaces_the_one_that_came_since() {
    let server = Server::start();
    let place = Key::of_refresh(&spec(1));
    let rotation = || Rotation::new(place, Arc::new(server.store()));
    let kept = |text: &str| Kept { token: Secret::new(text.to_owned()), root: LOGIN, consent: None };
    let (one, two, short, long) = (rotation(), rotation(), Duration::from_millis(100), Duration::from_secs(60));
    let mut first = one.own(long, false).await.unwrap();
    assert!(first.keep(kept("r1")).await);
    first.release().await;
    for clears in [true, false] {
        let mut late = one.own(short, false).await.unwrap();
        let mut next = two.own(long, false).await.unwrap();
        assert!(next.keep(kept(if clears { "r2" } else { "r3" })).await);
        if clears {
            late.clear().await;
        } else {
            assert!(!late.keep(kept("late")).await);
        }
        late.release().await;
        next.release().await;
        let owner = one.own(long, false).await.unwrap();
        assert_eq!(owner.current(LOGIN).unwrap().token.expose(), if clears { "r2" } else { "r3" });
        owner.release().await;
    }
    let mut owner = two.own(long, false).await.unwrap();
    owner.clear().await;
    owner.release().await;
    assert!(!two.is_there().await.unwrap());
}
