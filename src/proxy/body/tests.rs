//! Bodies of every framing, cut anywhere.

use std::{cell::Cell, future::poll_fn, rc::Rc};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::wire::{Chunked, Framing};

/// Feeds `input` through a pump in pieces; what came out, and how it ended.
fn pump(input: &[u8], piece: usize, from: Framing, to: Framing) -> (Vec<u8>, Result<(), String>) {
    pump_with(input, piece, from, to, None, &mut no_replay())
}

impl Inlet for DuplexStream {}
impl Outlet for DuplexStream {}

fn no_replay() -> Replay {
    Replay::new(0, &Rc::default())
}

fn side(io: DuplexStream) -> Side<DuplexStream> {
    let mut buf = Buffer::default();
    buf.grow(16);
    Side { io, buf }
}

fn pump_with(
    input: &[u8],
    piece: usize,
    from: Framing,
    to: Framing,
    max: Option<u64>,
    replay: &mut Replay,
) -> (Vec<u8>, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut feed, source) = duplex(piece);
        let (mut sink, mut drain) = duplex(piece + 3);
        let mut source = side(source);
        let mut pump = Pump::new(b"HEAD ".to_vec(), from, to, max);
        let feeding = async {
            let _ = feed.write_all(input).await;
            let _ = feed.shutdown().await;
        };
        let moving = async {
            let result = poll_fn(|cx| {
                pump.poll(
                    cx,
                    &mut source,
                    &mut sink,
                    Way {
                        replay: Some(replay),
                        trailers: &|all, out| {
                            out.extend_from_slice(&all[..all.len() - 2]);
                            Ok(())
                        },
                    },
                )
            })
            .await;
            drop(sink);
            drop(source);
            result
        };
        let mut out = Vec::new();
        let ((), moved, read) = tokio::join!(feeding, moving, drain.read_to_end(&mut out));
        read.unwrap();
        (out, moved.map_err(|e| format!("{e:?}")))
    })
}

const CHUNKED: &[u8] = b"3\r\nabc\r\n7;x=y\r\ndefghij\r\n0\r\n\r\n";

fn decoded(out: &[u8]) -> Vec<u8> {
    let (mut chunked, mut body, mut at) = (Chunked::default(), Vec::new(), b"HEAD ".len());
    while !chunked.is_done() {
        let step = chunked.step(&out[at..]).unwrap();
        assert!(step.consumed > 0, "the body has no end: {:?}", String::from_utf8_lossy(out));
        body.extend_from_slice(&out[at..][step.data]);
        at += step.consumed;
    }
    assert_eq!(at, out.len(), "nothing follows the end");
    body
}

#[test]
fn every_framing_becomes_every_other_wherever_it_is_cut() {
    for piece in 1..40 {
        let (out, end) = pump(b"abcdefghij", piece, Framing::Length(10), Framing::Length(10));
        assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
        let (out, end) = pump(b"abcdefghij", piece, Framing::UntilClose, Framing::UntilClose);
        assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
        let (out, end) = pump(CHUNKED, piece, Framing::Chunked, Framing::UntilClose);
        assert_eq!((&out[..], end), (&b"HEAD abcdefghij"[..], Ok(())));
        for (input, from) in [(CHUNKED, Framing::Chunked), (b"abcdefghij", Framing::UntilClose)] {
            let (out, end) = pump(input, piece, from, Framing::Chunked);
            assert_eq!((&decoded(&out)[..], end), (&b"abcdefghij"[..], Ok(())), "{from:?} in pieces of {piece}");
        }
    }
}

#[test]
fn a_body_ends_where_its_framing_says() {
    let (out, end) = pump(b"abcdef", 64, Framing::Length(3), Framing::Length(3));
    assert_eq!((&out[..], end), (&b"HEAD abc"[..], Ok(())));
    let (out, end) = pump(b"ignored", 64, Framing::None, Framing::None);
    assert_eq!((&out[..], end), (&b"HEAD "[..], Ok(())));
    let (out, _) = pump(b"", 64, Framing::UntilClose, Framing::Chunked);
    assert_eq!(decoded(&out), b"");
}

#[test]
fn a_truncated_body_never_gets_an_end() {
    for cut in 0..CHUNKED.len() {
        let (out, end) = pump(&CHUNKED[..cut], 7, Framing::Chunked, Framing::Chunked);
        assert!(end.is_err() && !out.ends_with(b"0\r\n\r\n"), "cut at {cut}");
    }
    let (_, end) = pump(b"abc", 7, Framing::Length(4), Framing::Length(4));
    assert_eq!(end, Err("Truncated".to_owned()));
}

#[test]
fn a_body_over_the_limit_is_cut_off() {
    let (out, end) = pump_with(b"abcdefghij", 4, Framing::Chunked, Framing::Chunked, Some(5), &mut no_replay());
    assert!(end.is_err() && !out.ends_with(b"0\r\n\r\n"));
    let (_, end) = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, Some(9), &mut no_replay());
    assert_eq!(end, Err("TooLarge".to_owned()));
    let (_, end) = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, Some(10), &mut no_replay());
    assert_eq!(end, Ok(()));
}

#[test]
fn what_fits_the_replay_buffer_is_held_and_its_memory_is_given_back() {
    let budget = Rc::new(Cell::new(100));
    let mut replay = Replay::new(10, &budget);
    let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut replay);
    assert!(replay.is_possible());
    assert_eq!((&replay.held[..], budget.get()), (&b"abcdefghij"[..], 90));
    let mut small = Replay::new(9, &budget);
    let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut small);
    assert!(!small.is_possible());
    let tight = Rc::new(Cell::new(9));
    let mut crowded_out = Replay::new(10, &tight);
    let _ = pump_with(CHUNKED, 4, Framing::Chunked, Framing::Chunked, None, &mut crowded_out);
    assert!(!crowded_out.is_possible(), "others hold the rest");
    assert_eq!(tight.get(), 9);
    drop((replay, small));
    assert_eq!(budget.get(), 100);
}
