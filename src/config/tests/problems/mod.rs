//! Files that are wrong, and exactly what is said about them.

mod credentials;
mod file;
mod grants;
mod routes;
mod secrets;
mod server;

use super::*;
