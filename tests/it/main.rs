//! The integration tests: the real binary, over real sockets. One test binary, so that it links once.
//!
//! Tests that need something from outside (npm `oidc-provider`, nginx) are `#[ignore]`d with the reason;
//! `tests/run` installs what they need and runs them too.

mod flow;
mod leaks;
mod nginx;
mod oidc;
mod parsing;
mod provider_faults;
mod rejection;
mod responses;
mod routing;
mod support;
mod support_itself;
mod upstream_faults;
