//! One Redis or Valkey for several replicas: sealed tokens, and a lease a key that elects who fetches.
//!
//! Redis holds no readable token: a hash with the sealed record, when it was issued (milliseconds, so that an
//! older token never displaces a newer one) and its fingerprint (so that a rejected token is removed only while
//! it is still the one that was rejected). A Redis that is away or slow never stands in the way of a token:
//! that is said once, and whoever needs a token fetches for itself.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisConnectionInfo, aio::MultiplexedConnection, cmd,
};
use tokio::{runtime::Handle, task::JoinSet};

use super::{record::Record, seal::Seal};
use crate::{
    config::model::{Budget, RedisSpec},
    net::{Connector, Target},
    token::{
        Key,
        budget::Account,
        credential::Version,
        reply::Minted,
        share::{Claim, Common},
    },
};

/// A command that takes longer counts as no answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// After a failure Redis is left alone for this long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Clocks of replicas may differ by this much; a token from further in the future is not believed.
const SKEW: Duration = Duration::from_secs(60);

/// Gives a token, and in how many ms it ends by Redis' own clock. KEYS: token.
const LOAD: &str = "return {redis.call('HGET', KEYS[1], 'sealed'), redis.call('PTTL', KEYS[1])}";

/// Stores a token unless a newer one is there. KEYS: token. ARGV: issued, fingerprint, sealed, life (ms).
const SAVE: &str = "local old = tonumber(redis.call('HGET', KEYS[1], 'issued') or '-1') \
    if old >= tonumber(ARGV[1]) then return 0 end \
    redis.call('HSET', KEYS[1], 'issued', ARGV[1], 'fingerprint', ARGV[2], 'sealed', ARGV[3]) \
    redis.call('PEXPIRE', KEYS[1], ARGV[4]) return 1";

/// Removes a token while it is the one that was rejected. KEYS: token. ARGV: fingerprint.
const FORGET: &str =
    "if redis.call('HGET', KEYS[1], 'fingerprint') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Takes a lease, or names who has it. KEYS: lease. ARGV: owner, length (ms), whom it may be taken from.
const LEASE: &str = "local holder = redis.call('GET', KEYS[1]) \
    if holder and holder ~= ARGV[3] then return holder end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return false";

/// Removes what is still the same: a lease that is ours. KEYS: name. ARGV: value.
const REMOVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Replaces what is still the same, or gone, or the new value already. KEYS: name. ARGV: old value, new value.
const REPLACE: &str = "local now = redis.call('GET', KEYS[1]) \
    if now and now ~= ARGV[1] and now ~= ARGV[2] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2]) return 1";

/// Counts a token request if that leaves no more than the limit within the window; by Redis' own clock, so that
/// replicas' need not agree. Gives how many there are, and in how many ms one is free (-1 = it was counted).
/// KEYS: budget. ARGV: limit, window (ms), id.
const TAKE: &str = "local time = redis.call('TIME') \
    local now = time[1] * 1000 + math.floor(time[2] / 1000) \
    local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]) \
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window) \
    local used = redis.call('ZCARD', KEYS[1]) \
    if used < limit then \
        redis.call('ZADD', KEYS[1], now, ARGV[3]) \
        redis.call('PEXPIRE', KEYS[1], window) \
        return {used + 1, -1} \
    end \
    local next = redis.call('ZRANGE', KEYS[1], used - limit, used - limit, 'WITHSCORES') \
    return {used, math.max(0, next[2] + window - now)}";

/// No answer; it has been said already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// The shared store.
pub struct Redis {
    spec: RedisSpec,
    connector: Connector,
    login: RedisConnectionInfo,
    seal: Seal,
    /// For messages: host and port.
    place: String,
    link: Mutex<Link>,
    /// Those who give back leases.
    givers: Mutex<JoinSet<()>>,
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
        let mut login = RedisConnectionInfo::default().set_db(spec.database.into());
        if let Some(username) = &spec.username {
            login = login.set_username(username);
        }
        if let Some(source) = &spec.password {
            let password = source.read_blocking().map_err(|e| format!("tokens.store: password: {e}"))?;
            login = login.set_password(password.expose());
        }
        let connector = Connector::new(Arc::clone(&spec.net)).map_err(|e| format!("tokens.store: {e}"))?;
        Ok(Self { spec: spec.clone(), connector, login, seal, place, link: Mutex::default(), givers: Mutex::default() })
    }

    /// The token of `key`, if there is one that was got with this version of the secrets and has not expired.
    pub async fn load(&self, key: Key, version: Version, now: SystemTime) -> Result<Option<Minted>, Away> {
        let (sealed, left): (Option<Vec<u8>>, i64) = self.run(&script(LOAD, &token_name(key))).await?;
        let (Some(sealed), Ok(left)) = (sealed, u64::try_from(left)) else { return Ok(None) };
        let opened = self.seal.open(key.as_bytes(), &sealed);
        let Some(record) = opened.as_ref().and_then(|plain| Record::from_bytes(plain)) else {
            let place = &self.place;
            tracing::warn!(place, "a token in redis is damaged or was sealed with another key; a new one is fetched");
            return Ok(None);
        };
        if record.issued_at().is_none_or(|issued| issued > now + SKEW) {
            return Ok(None);
        }
        Ok(record.into_minted(version, now, Some(Duration::from_millis(left))))
    }

    /// Shares a token with the other replicas, unless a newer one is there.
    pub async fn save(&self, key: Key, version: Version, minted: &Minted) -> Result<(), Away> {
        let record = Record::of(version, minted);
        let Ok(sealed) = self.seal.seal(key.as_bytes(), &record.to_bytes()) else { return Ok(()) };
        // By Redis' clock it begins to live only now.
        let left = minted.life.saturating_sub(minted.issued.mono.elapsed());
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX >> 1).max(1);
        let mut command = script(SAVE, &token_name(key));
        command.arg(record.issued_millis()).arg(&minted.fingerprint).arg(sealed).arg(left);
        self.run::<i64>(&command).await.map(drop)
    }

    /// Removes the token with this fingerprint, which an upstream has rejected.
    pub async fn forget(&self, key: Key, fingerprint: &str) -> Result<(), Away> {
        self.run::<i64>(script(FORGET, &token_name(key)).arg(fingerprint)).await.map(drop)
    }

    /// Counts one more token request of `account`, under `id`, or says how long it takes until one is free; and how many
    /// there are within the window.
    pub async fn take(&self, account: Account, budget: Budget, id: &str) -> Result<(u32, Option<Duration>), Away> {
        let window = u64::try_from(budget.window.as_millis()).unwrap_or(u64::MAX >> 12);
        let mut command = script(TAKE, &budget_name(account));
        command.arg(budget.limit).arg(window).arg(id);
        let (used, free_in) = self.run::<(u32, i64)>(&command).await?;
        Ok((used, u64::try_from(free_in).ok().map(Duration::from_millis)))
    }

    /// Takes back what was counted under `id`.
    pub async fn give_back(&self, account: Account, id: &str) {
        let _ = self.run::<i64>(cmd("ZREM").arg(budget_name(account)).arg(id)).await;
    }

    /// What is kept under a name, sealed.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Away> {
        self.run(cmd("GET").arg(name)).await
    }

    /// Keeps it until it is replaced.
    pub(super) async fn set(&self, name: &str, sealed: &[u8]) -> Result<(), Away> {
        self.run::<String>(cmd("SET").arg(name).arg(sealed)).await.map(drop)
    }

    /// The same, unless something else than `old` is there: whether it was done.
    pub(super) async fn replace(&self, name: &str, old: &[u8], sealed: &[u8]) -> Result<bool, Away> {
        Ok(self.run::<i64>(script(REPLACE, name).arg(old).arg(sealed)).await? == 1)
    }

    /// Removes it, unless something else is there.
    pub(super) async fn remove(&self, name: &str, sealed: &[u8]) -> Result<(), Away> {
        self.run::<i64>(script(REMOVE, name).arg(sealed)).await.map(drop)
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
            Ok(Err(error)) => told(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        self.failed(&why);
        Err(Away)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let RedisSpec { scheme, host, port, .. } = &self.spec;
        // What is stored is sealed; whether the password may travel in plain text is the network's question.
        let target = Target { scheme: *scheme, host, port: *port, insecure: true };
        let stream = self.connector.connect(target, PATIENCE).await.map_err(io::Error::other)?;
        let limits = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let (connection, driver) = MultiplexedConnection::new_with_config(&self.login, stream, limits).await?;
        tokio::spawn(driver); // ends with the last handle to the connection
        Ok(connection)
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

/// The right to fetch a key's token; ends by itself. Dropped, it is given back in the background: whoever gave up a fetch
/// leaves nobody waiting for it.
#[derive(Debug)]
pub struct Lease {
    redis: Arc<Redis>,
    entry: Entry,
    /// It may stand in Redis.
    stands: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.stands {
            self.redis.give_back_later(self.entry.clone());
        }
    }
}

/// What stands in Redis of a lease.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    /// Random: nobody else gives back what is ours.
    owner: String,
    until: Instant,
}

/// What went wrong, in words that hold neither password nor token: our own of a connection that was not made, else the
/// kind of error.
fn told(error: &redis::RedisError) -> String {
    match error.kind() {
        ErrorKind::Io => error.to_string(),
        _ => error.category().to_owned(),
    }
}

fn script(text: &str, key: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(text).arg(1).arg(key);
    command
}

impl Redis {
    /// Takes the lease of `key` for `length`, also from the holder called `from`. What was taken although no answer came
    /// is given back later.
    pub async fn lease(self: &Arc<Self>, key: Key, length: Duration, from: Option<&str>) -> Result<Claim<Lease>, Away> {
        let mut owner = [0; 16];
        aws_lc_rs::rand::fill(&mut owner).map_err(|_| Away)?;
        let owner = URL_SAFE_NO_PAD.encode(owner);
        let entry = Entry { name: lease_name(key), owner, until: Instant::now() + length };
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX >> 1);
        let mut command = script(LEASE, &entry.name);
        command.arg(&entry.owner).arg(length).arg(from.unwrap_or_default());
        // From here on, also where nobody waits for the answer.
        let mut lease = Lease { redis: Arc::clone(self), entry, stands: true };
        match self.run::<Option<String>>(&command).await? {
            None => Ok(Claim::Ours(lease)),
            Some(holder) => {
                lease.stands = false;
                Ok(Claim::Theirs(holder))
            }
        }
    }

    /// Gives a lease back, if it has not passed to another replica meanwhile; later, where Redis does not answer.
    pub async fn release(&self, mut lease: Lease) {
        lease.stands = self.try_release(&lease.entry).await.is_err();
    }

    async fn try_release(&self, Entry { name, owner, .. }: &Entry) -> Result<(), Away> {
        self.run::<i64>(script(REMOVE, name).arg(owner)).await.map(drop)
    }

    /// Nobody shall wait for a lease that nobody uses, as soon as Redis answers.
    fn give_back_later(self: &Arc<Self>, entry: Entry) {
        let Ok(runtime) = Handle::try_current() else { return };
        let redis = Arc::clone(self);
        let giving = async move {
            while redis.try_release(&entry).await.is_err() && Instant::now() < entry.until {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let mut givers = self.givers.lock().unwrap_or_else(PoisonError::into_inner);
        while givers.try_join_next().is_some() {}
        givers.spawn_on(giving, &runtime);
    }

    /// Waits until all leases are given back that were dropped before.
    pub(super) async fn given_back(&self) {
        let mut givers = std::mem::take(&mut *self.givers.lock().unwrap_or_else(PoisonError::into_inner));
        while givers.join_next().await.is_some() {}
    }
}

impl Common for Arc<Redis> {
    type Lease = Lease;

    async fn load(&self, key: Key, version: Version) -> Result<Option<Minted>, Away> {
        Redis::load(self, key, version, SystemTime::now()).await
    }

    async fn forget(&self, key: Key, fingerprint: &str) -> Result<(), Away> {
        Redis::forget(self, key, fingerprint).await
    }

    async fn lease(&self, key: Key, length: Duration, from: Option<&str>) -> Result<Claim<Lease>, Away> {
        Redis::lease(self, key, length, from).await
    }

    async fn release(&self, lease: Lease) {
        Redis::release(self, lease).await;
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn sleep(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }
}

fn budget_name(account: Account) -> String {
    format!("cupbearer:budget:{}", account.to_hex())
}

fn token_name(key: Key) -> String {
    format!("cupbearer:token:{}", key.to_hex())
}

fn lease_name(key: Key) -> String {
    format!("cupbearer:lease:{}", key.to_hex())
}
