//! The life of a token, tested in many ways; `README.md` says which rule is shown by what.
//!
//! * `cases`: the state machine over a virtual clock, from the stories in `tests/token_engine/cases/`;
//! * `requests`, `replies`, `keys`: what is sent, how an answer is read, what tells tokens apart;
//! * `properties`: single-flight and its kin under arbitrary events;
//! * `waiting`: what a reader of the cell waits for;
//! * `assertions`: what vouches for a client or a grant;
//! * `signed`: nonces and clocks of a provider;
//! * `grants`: static tokens and rotating refresh tokens;
//! * `budget`: what a budget lets through;
//! * `pace`: the numbers;
//! * `overlap`: several client secrets, and files that change;
//! * `lease`: who of several replicas asks, over a simulated Redis;
//! * `readme`: the table of all rules beside this file;
//! * `redis`: several replicas and a real Redis;
//! * `egress`: the way through a proxy;
//! * `discovery`: a provider of which only the issuer is known;
//! * `live`: the engine against a small provider over real sockets.

mod assertions;
mod budget;
mod cases;
mod discovery;
mod egress;
mod grants;
mod keys;
mod lease;
mod live;
mod overlap;
mod pace;
mod properties;
mod readme;
mod redis;
mod replies;
mod requests;
mod signed;
mod support;
mod waiting;
