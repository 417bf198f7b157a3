//! One Redis or Valkey for several replicas: sealed tokens, and a lease a key that elects who fetches.
//!
//! Redis holds no readable token: a hash with the sealed record, when it was issued (milliseconds, so that an
//! older token never displaces a newer one) and its fingerprint (so that a rejected token is removed only while
//! it is still the one that was rejected). A Redis that is away or slow never stands in the way of a token:
//! that is said once, and whoever needs a token fetches for itself.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _, RedisConnectionInfo,
    aio::MultiplexedConnection, cmd,
};

use super::{record::Record, seal::Seal};
use crate::{
    config::model::RedisSpec,
    token::{Key, credential::Version, reply::Minted},
};

/// A command that takes longer counts as no answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// After a failure Redis is left alone for this long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Clocks of replicas may differ by this much; a token from further in the future is not believed.
const SKEW: Duration = Duration::from_secs(60);

/// Stores a token unless a newer one is there. KEYS: token. ARGV: issued, fingerprint, sealed, life (ms).
const SAVE: &str = "local old = tonumber(redis.call('HGET', KEYS[1], 'issued') or '-1') \
    if old >= tonumber(ARGV[1]) then return 0 end \
    redis.call('HSET', KEYS[1], 'issued', ARGV[1], 'fingerprint', ARGV[2], 'sealed', ARGV[3]) \
    redis.call('PEXPIRE', KEYS[1], ARGV[4]) return 1";

/// Removes a token while it is the one that was rejected. KEYS: token. ARGV: fingerprint.
const FORGET: &str =
    "if redis.call('HGET', KEYS[1], 'fingerprint') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Gives a lease back, if it is still ours. KEYS: lease. ARGV: owner.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// No answer; it has been said already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// The shared store.
pub struct Redis {
    client: Client,
    seal: Seal,
    /// For messages: host and port.
    place: String,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// Since the last failure; what is said is said at its begin and end.
    away: Option<Instant>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.place)
    }
}

impl Redis {
    /// Reads the password; connects at the first use.
    pub fn open(spec: &RedisSpec, seal: Seal) -> Result<Self, String> {
        let place = format!("{}:{}", spec.host, spec.port);
        let mut settings = RedisConnectionInfo::default().set_db(spec.database.into());
        if let Some(username) = &spec.username {
            settings = settings.set_username(username);
        }
        if let Some(source) = &spec.password {
            let password = source.read_blocking().map_err(|e| format!("tokens.store: password: {e}"))?;
            settings = settings.set_password(password.expose());
        }
        let info = ConnectionAddr::Tcp(spec.host.clone(), spec.port).into_connection_info();
        let client = info.and_then(|info| Client::open(info.set_redis_settings(settings)));
        let client = client.map_err(|e| format!("tokens.store: redis at {place}: {}", e.category()))?;
        Ok(Self { client, seal, place, link: Mutex::default() })
    }

    /// The token of `key`, if there is one that was got with this version of the secrets and has not expired.
    pub async fn load(&self, key: Key, version: Version, now: SystemTime) -> Result<Option<Minted>, Away> {
        let sealed: Option<Vec<u8>> = self.run(cmd("HGET").arg(token_name(key)).arg("sealed")).await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = self.seal.open(key.as_bytes(), &sealed);
        let Some(record) = opened.as_ref().and_then(|plain| Record::from_bytes(plain)) else {
            let place = &self.place;
            tracing::warn!(place, "a token in redis is damaged or was sealed with another key; a new one is fetched");
            return Ok(None);
        };
        let skewed = record.issued_at().filter(|issued| *issued <= now + SKEW).unwrap_or(now);
        Ok(record.into_minted(version, now.max(skewed)))
    }

    /// Shares a token with the other replicas, unless a newer one is there.
    pub async fn save(&self, key: Key, version: Version, minted: &Minted) -> Result<(), Away> {
        let record = Record::of(version, minted);
        let Ok(sealed) = self.seal.seal(key.as_bytes(), &record.to_bytes()) else { return Ok(()) };
        let life = u64::try_from(minted.life.as_millis()).unwrap_or(u64::MAX >> 1).max(1);
        let mut command = script(SAVE, &token_name(key));
        command.arg(record.issued_millis()).arg(&minted.fingerprint).arg(sealed).arg(life);
        self.run::<i64>(&command).await.map(drop)
    }

    /// Removes the token with this fingerprint, which an upstream has rejected.
    pub async fn forget(&self, key: Key, fingerprint: &str) -> Result<(), Away> {
        self.run::<i64>(script(FORGET, &token_name(key)).arg(fingerprint)).await.map(drop)
    }

    /// Takes the lease of `key` for `length`; `None` while another replica has it.
    pub async fn lease(&self, key: Key, length: Duration) -> Result<Option<Lease>, Away> {
        let mut owner = [0; 16];
        aws_lc_rs::rand::fill(&mut owner).map_err(|_| Away)?;
        let lease = Lease { name: lease_name(key), owner: URL_SAFE_NO_PAD.encode(owner) };
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX >> 1);
        let mut command = cmd("SET");
        command.arg(&lease.name).arg(&lease.owner).arg("NX").arg("PX").arg(length);
        let taken: Option<String> = self.run(&command).await?;
        Ok(taken.map(|_| lease))
    }

    /// Gives a lease back, if it has not passed to another replica meanwhile.
    pub async fn release(&self, lease: &Lease) {
        let _ = self.run::<i64>(script(RELEASE, &lease.name).arg(&lease.owner)).await;
    }

    /// What is kept under a name, sealed.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Away> {
        self.run(cmd("GET").arg(name)).await
    }

    /// Keeps it until it is replaced.
    pub(super) async fn set(&self, name: &str, sealed: Vec<u8>) -> Result<(), Away> {
        self.run::<String>(cmd("SET").arg(name).arg(sealed)).await.map(drop)
    }

    /// Removes it.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Away> {
        self.run::<i64>(cmd("DEL").arg(name)).await.map(drop)
    }

    /// What seals and opens.
    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// For messages: host and port.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let (known, resting) = {
            let link = self.lock();
            (link.connection.clone(), link.away.is_some_and(|since| since.elapsed() < PAUSE))
        };
        if resting {
            return Err(Away);
        }
        let answer = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer = command.query_async(&mut connection).await?;
            Ok::<_, redis::RedisError>((answer, connection))
        };
        let why = match tokio::time::timeout(2 * PATIENCE, answer).await {
            Ok(Ok((answer, connection))) => {
                self.answered(connection);
                return Ok(answer);
            }
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.failed(&why);
        Err(Away)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let limits =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        self.client.get_multiplexed_async_connection_with_config(&limits).await
    }

    fn answered(&self, connection: MultiplexedConnection) {
        let mut link = self.lock();
        link.connection = Some(connection);
        if link.away.take().is_some() {
            tracing::info!(place = self.place, "redis is back: tokens are shared again");
        }
    }

    fn failed(&self, why: &str) {
        let mut link = self.lock();
        link.connection = None;
        if link.away.replace(Instant::now()).is_none() {
            let place = &self.place;
            tracing::warn!(place, "redis is away: until it is back this replica fetches tokens for itself: {why}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to fetch a key's token; ends by itself.
#[derive(Debug)]
pub struct Lease {
    name: String,
    /// Random: nobody else gives back what is ours.
    owner: String,
}

fn script(text: &str, key: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(text).arg(1).arg(key);
    command
}

fn token_name(key: Key) -> String {
    format!("cupbearer:token:{}", key.to_hex())
}

fn lease_name(key: Key) -> String {
    format!("cupbearer:lease:{}", key.to_hex())
}
