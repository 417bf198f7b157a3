//! The integration tests: the real binary, over real sockets. One test binary, so that it links once.
//!
//! Tests that need something from outside (npm `oidc-provider`, nginx, redis, nghttp2, `websockets` and gRPC for Python, curl, slowhttptest, libfaketime, gnome-keyring) are `#[ignore]`d with the reason;
//! `tests/run` installs what they need and runs them too.

mod access_log;
mod balance;
mod clocks;
mod demo;
mod discovery;
mod dpop;
mod egress;
mod flow;
mod grants;
mod http2;
mod keyring;
mod leaks;
mod lifecycle;
mod login;
mod login_requests;
mod mixing;
mod mtls;
mod nginx;
mod oidc;
mod oidc_clients;
mod oidc_dpop;
mod oidc_login;
mod online;
mod overload;
mod parsing;
mod peers;
mod profiles;
mod provider_faults;
mod providers;
mod redis;
mod refresh_tokens;
mod rejection;
mod responses;
mod rotation;
mod routing;
mod store;
mod support;
mod support_itself;
mod tls_listener;
mod token_life;
mod trailers;
mod upstream_faults;
mod vault;
mod websocket;
