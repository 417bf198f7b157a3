//! HTTP/2 on the wire, as a client speaks it (RFC 9113, RFC 7541): frames and header compression, pure.
//!
//! A request's head that [`crate::rules::headers`] wrote in the words of HTTP/1.1 is [encoded](encode) as it is; an answer's
//! head is [decoded](decoder) and [told](answer) in the same words, so that one strict parser judges every answer.

pub mod answer;
pub mod decoder;
pub mod encode;
pub mod frame;
mod huffman;
mod table;
