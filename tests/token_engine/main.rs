//! The life of a token, tested four ways.
//!
//! * `cases`: the state machine over a virtual clock, from the data files in `tests/token_engine/cases/`;
//! * `replies` and `requests`: what is sent and how an answer is read, from the tables beside them;
//! * `properties`: single-flight and its kin under arbitrary events;
//! * `live`: the engine against a small provider over real sockets.

mod cases;
mod live;
mod support;
