//! The life of a token, on the control thread.
//!
//! 1. **which and who** — [`key`]: what makes two tokens the same; [`credential`]: the secrets, read for each
//!    request from their [`sources`], with [`presented`]: the certificate; [`secrets`]: watched, and a new one tried
//!    first, with [`overlap`]: which of several;
//!    `vault`: a source that is asked over HTTP;
//! 2. **how we ask, what comes back** — [`grant`] builds the request (its parameters: `params`; what vouches
//!    for us: `assertion`, signed by [`jwt`]; that we hold the token's key: [`dpop`]); [`reply`], with [`lifetime`],
//!    [`refusal`] and [`known`], judges the answer: a token, or a refusal, transient or permanent; [`rotation`]: the
//!    refresh token, with the user's [`consent`];
//! 3. **the asking** — `asking`: one fetch, from secrets to token; [`discovery`], by the provider's [`metadata`]:
//!    where; `peer`: what a provider has told of itself, with its `clock`; [`endpoint`]: one HTTP call and its limits; [`budget`]:
//!    whether it may be made;
//! 4. **where it stands** — [`state`]: the pure state machine; [`pace`]: its numbers;
//! 5. **the one who does it** — [`refresh`]: one task a key, timers, single-flight; [`share`]: among replicas; [`halt`]: the end;
//! 6. **the store** — [`store`]: where tokens outlive the process, sealed;
//! 7. **the result** — [`bearer`]: all that the data plane sees; `status`: what people and metrics may know; [`inquiry`]: all that
//!    `check --online` tells, with [`claims`] and `curl`.
//!
//! A user who has to log in once does it by [`login`], in a process of its own; the refresh token goes into the store.
//!
//! [`Engine`] owns the tasks and hands out the [`Reader`]s.

mod asking;
mod assertion;
pub mod bearer;
pub mod budget;
pub mod claims;
mod clock;
pub mod consent;
pub mod credential;
mod curl;
pub mod discovery;
pub mod dpop;
pub mod endpoint;
mod engine;
pub mod grant;
pub mod halt;
pub mod inquiry;
pub mod jwt;
pub mod key;
pub mod known;
pub mod lifetime;
pub mod login;
pub mod metadata;
pub mod overlap;
pub mod pace;
mod params;
mod peer;
pub mod presented;
pub mod refresh;
pub mod refusal;
pub mod reply;
pub mod rotation;
pub mod secrets;
pub mod share;
pub mod sources;
pub mod state;
mod status;
pub mod store;
mod vault;

pub use bearer::Reader;
pub use engine::{Engine, EngineError, Plan};
pub use inquiry::Inquiry;
pub use key::Key;
pub use status::{LastError, TokenStatus};
pub use store::Store;
