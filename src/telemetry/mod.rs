//! What is told about the running process: the log, a line for each request, and metrics later.

pub mod access;
pub mod log;
