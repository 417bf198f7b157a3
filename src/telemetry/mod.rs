//! What is told about the running process: the log now, the access line and metrics later.

pub mod log;
