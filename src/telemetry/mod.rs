//! What is told about the running process: the log, a line for each request, and what is counted.

pub mod access;
pub mod log;
pub mod metrics;
