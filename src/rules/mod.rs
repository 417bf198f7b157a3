//! PURE CORE: what may pass, and where it goes. No I/O, no clock, no async.
//!
//! The proxy, `explain` and the fuzz targets run this very code. In the order in which a request meets it:
//!
//! 1. [`path`]: the request target becomes the one canonical path, or is refused.
//! 2. [`table`]: the longest route prefix on a segment boundary.
//! 3. [`origin`]: `Host`, `Origin` and Fetch Metadata, so that a web page cannot be a caller.
//! 4. [`caller`]: who is asking.
//! 5. [`policy`]: the verdict and the rule that gave it; rules are matched by [`glob`].
//! 6. [`headers`]: what is dropped, what is set, the token last; [`challenge`]: what a 401 means.
//! 7. [`rewrite`]: on the way back, references stay behind the prefix ([`cookie`] for `Set-Cookie`).

pub mod caller;
pub mod challenge;
pub mod cookie;
pub mod glob;
pub mod headers;
pub mod origin;
pub mod path;
pub mod policy;
pub mod rewrite;
pub mod table;

mod escape;
mod reference;

#[cfg(test)]
mod testing;
