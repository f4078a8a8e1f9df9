//! `rstlab watch` beside real sockets. Needs root, a mounted tracefs, tcpdump and unshare:
//! `cargo test -p rstlab-lab --features kernel --test watch_kernel`.

#![cfg(feature = "kernel")]

mod beside;
mod ends;
mod says;
mod tcpdump;
