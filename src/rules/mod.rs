//! The pure core: what may pass, where it goes, and what is changed on the way.
//!
//! No I/O, no clock, no async; the data plane, `explain` and the fuzz targets use the very same code.

pub mod challenge;
pub mod headers;
