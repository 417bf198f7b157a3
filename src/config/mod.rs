//! What was written → what may run.

pub mod model;
pub mod secret;
