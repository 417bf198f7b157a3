//! The life of a token.

pub mod bearer;
